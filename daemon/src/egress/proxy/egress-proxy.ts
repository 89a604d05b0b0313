import { once } from "node:events";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import type { Audit, FindClient } from "../egress-client.js";
import { Accounts, type Counters } from "./accounts.js";
import type { Connection } from "./connection.js";
import type { Resolve } from "./dial.js";
import { HttpProxy } from "./http-proxy.js";
import { defaultTimings, tcpKeepAlive, type Timings } from "./timings.js";
import { TlsProxy } from "./tls-proxy.js";
import { UpstreamPool } from "./upstream-pool.js";

const maxConnections = 512;
const backlog = 4096;

export interface EgressProxyOptions {
  readonly find: FindClient;
  readonly resolve: Resolve;
  /** whether servers are tried by IPv6 as well; false */
  readonly ipv6?: boolean;
  readonly audit: Audit;
  /** where servers listen, instead of on 80 and 443; for tests */
  readonly ports?: { readonly http: number; readonly tls: number };
  /** for tests */
  readonly timings?: Partial<Timings>;
}

export interface ProxyPorts {
  readonly httpPort: number;
  readonly tlsPort: number;
}

/** The two listeners to which TCP connections of sandboxes to ports 80 and 443 are redirected, whatever address they were to. */
export class EgressProxy {
  readonly #find: FindClient;
  readonly #accounts: Accounts;
  readonly #pool: UpstreamPool;
  readonly #http: Server;
  readonly #tls: Server;
  /** listeners, each of which hands its connections to one of the two servers */
  readonly #listeners: Server[] = [];

  constructor(options: EgressProxyOptions) {
    const { find, audit, resolve, ipv6 = false, ports = { http: 80, tls: 443 } } = options;
    const timings = { ...defaultTimings, ...options.timings };
    this.#find = find;
    this.#accounts = new Accounts({ find, audit, limit: maxConnections });
    this.#pool = new UpstreamPool(timings.idle);
    const admitHttp = (socket: Socket): Connection | null => this.#accounts.admit(socket, "http");
    this.#http = new HttpProxy({ resolve, ipv6, timings, pool: this.#pool, port: ports.http }, admitHttp).server;
    const tls = new TlsProxy({ resolve, ipv6, timings, port: ports.tls });
    this.#tls = createServer({ allowHalfOpen: true, noDelay: true, ...tcpKeepAlive }, (socket) => {
      const connection = this.#accounts.admit(socket, "tls");
      if (connection !== null) tls.serve(connection);
    });
  }

  /** Listens at an address, on the ports that are asked for, otherwise on ports that the kernel chooses; to be called for each address. */
  async listen(host: string, wanted: ProxyPorts = { httpPort: 0, tlsPort: 0 }): Promise<ProxyPorts> {
    return {
      httpPort: await this.#listenFor(this.#http, host, wanted.httpPort),
      tlsPort: await this.#listenFor(this.#tls, host, wanted.tlsPort),
    };
  }

  /** Cuts everything. */
  async close(): Promise<void> {
    const servers = [this.#http, this.#tls, ...this.#listeners].filter(({ listening }) => listening);
    const closed = servers.map((server) => new Promise((resolve) => server.close(resolve)));
    this.#accounts.forgetAll();
    this.#pool.forgetAll();
    await Promise.all(closed);
  }

  /** After a change of a policy: cuts what it no longer allows, and leaves the rest. */
  recheck(address: string): void {
    this.#accounts.recheck(address);
    const policy = this.#find(address)?.policy;
    if (policy === undefined) this.#pool.forget(address);
    else {
      this.#pool.prune(
        address,
        (name, server) =>
          policy.connectByName(name, 80, "tcp").allowed && policy.connectResolved(server, 80, "tcp").allowed,
      );
    }
  }

  /** After the end of a sandbox: cuts all that it has, and forgets its figures. */
  forget(address: string): void {
    this.#accounts.forget(address);
    this.#pool.forget(address);
  }

  counters(address: string): Counters {
    return this.#accounts.counters(address);
  }

  /** A server listens at one address itself; at others, somebody does for it. */
  #listenFor(server: Server, host: string, port: number): Promise<number> {
    if (!server.listening) return listenOn(server, host, port);
    const listener = createServer({ allowHalfOpen: true, noDelay: true, ...tcpKeepAlive }, (socket) =>
      server.emit("connection", socket),
    );
    this.#listeners.push(listener);
    return listenOn(listener, host, port);
  }
}

async function listenOn(server: Server, host: string, port: number): Promise<number> {
  server.listen({ host, port, backlog });
  await once(server, "listening"); // throws on "error"
  return (server.address() as AddressInfo).port;
}
