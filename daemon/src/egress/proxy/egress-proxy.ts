import { once } from "node:events";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { createSecureContext } from "node:tls";
import type { Audit, EgressClient, FindClient, NoteUse } from "../egress-client.js";
import type { Secret } from "../../core/secrets/secret.js";
import { SecretSet } from "../secrets/secret-set.js";
import type { Trusted } from "../tls/roots.js";
import { Accounts, type Counters } from "./accounts.js";
import { ConnectProxy } from "./connect-proxy.js";
import type { Connection } from "./connection.js";
import type { Resolve } from "./dial.js";
import { connectTo } from "./host.js";
import { HttpProxy } from "./http-proxy.js";
import { Http2Proxy } from "./http2-proxy.js";
import { Interceptor } from "./interceptor.js";
import { LargeBuffers } from "./large-buffers.js";
import { SecretUses, type CompileSecrets } from "./secret-uses.js";
import { SessionPool } from "./session-pool.js";
import { defaultTimings, tcpKeepAlive, type Timings } from "./timings.js";
import { TlsProxy } from "./tls-proxy.js";
import { UpstreamPool } from "./upstream-pool.js";
import { Upstreams } from "./upstreams.js";

const maxConnections = 512;
const backlog = 4096;
const largeBuffers = 32;
/** hosts of one sandbox's secrets */
const maxPrepared = 64;

export interface EgressProxyOptions {
  readonly find: FindClient;
  readonly resolve: Resolve;
  /** whether servers are tried by IPv6 as well; false */
  readonly ipv6?: boolean;
  readonly audit: Audit;
  /** nobody is told in its absence; for tests */
  readonly noteUse?: NoteUse;
  /** what servers' certificates are verified against; nothing in its absence, so that no TLS server is reached by requests */
  readonly trusted?: Trusted;
  /** what puts secrets in; another one than ours only in tests */
  readonly compile?: CompileSecrets;
  /** where servers listen, instead of on the ports that sandboxes connect to; for tests */
  readonly portOf?: (port: number) => number;
  /** for tests */
  readonly timings?: Partial<Timings>;
}

export interface ProxyPorts {
  readonly httpPort: number;
  readonly tlsPort: number;
  /** of the proxy that programs ask for by name; 0 where it is not offered */
  readonly explicitPort: number;
}

/**
 * The listeners to which TCP connections of sandboxes are redirected: those to ports 80 and 443, whatever address they were to, and those to
 * the proxy that programs know of.
 */
export class EgressProxy {
  readonly #find: FindClient;
  readonly #accounts: Accounts;
  readonly #pool: UpstreamPool;
  readonly #sessions: SessionPool;
  readonly #interceptor: Interceptor;
  readonly #http: Server;
  readonly #tls: Server;
  readonly #explicit: Server;
  /** listeners, each of which hands its connections to one of the two servers */
  readonly #listeners: Server[] = [];

  constructor(options: EgressProxyOptions) {
    const { find, audit, resolve, ipv6 = false, portOf = (port: number): number => port } = options;
    const { noteUse = () => undefined, compile = compileSecrets } = options;
    const { trusted = () => createSecureContext({ ca: [] }) } = options;
    const timings = { ...defaultTimings, ...options.timings };
    this.#find = find;
    this.#accounts = new Accounts({ find, audit, limit: maxConnections, uses: new SecretUses(noteUse, compile) });
    this.#pool = new UpstreamPool(timings.idle);
    this.#sessions = new SessionPool(timings.idle);
    const ways = { resolve, ipv6, timings, portOf };
    const upstreams = new Upstreams({ ...ways, trusted, pool: this.#pool, sessions: this.#sessions });
    const admitHttp = (socket: Socket): Connection | null => this.#accounts.admit(socket, "http");
    const http = new HttpProxy({ timings, upstreams, connect: null }, admitHttp, {
      secure: false,
      expected: null,
      explicit: false,
    });
    this.#http = http.server;
    this.#interceptor = new Interceptor({ timings, http, http2: new Http2Proxy({ timings, upstreams }) });
    const tunnels = { ...ways, large: new LargeBuffers(largeBuffers) };
    const tls = new TlsProxy({ ...tunnels, interceptor: this.#interceptor });
    this.#tls = createServer({ allowHalfOpen: true, noDelay: true, ...tcpKeepAlive }, (socket) => {
      const connection = this.#accounts.admit(socket, "tls");
      if (connection !== null) tls.serve(connection);
    });
    const admitAsked = (socket: Socket): Connection | null => this.#accounts.admit(socket, "proxy");
    const connect = new ConnectProxy({ ...tunnels, tls });
    const explicit = { secure: false, expected: null, explicit: true };
    this.#explicit = new HttpProxy({ timings, upstreams, connect }, admitAsked, explicit).server;
  }

  /** Listens at an address, on the ports that are asked for, otherwise on ports that the kernel chooses; to be called for each address. */
  async listen(
    host: string,
    wanted: ProxyPorts | null,
    { explicit }: { readonly explicit: boolean },
  ): Promise<ProxyPorts> {
    return {
      httpPort: await this.#listenFor(this.#http, host, wanted?.httpPort ?? 0),
      tlsPort: await this.#listenFor(this.#tls, host, wanted?.tlsPort ?? 0),
      explicitPort: explicit ? await this.#listenFor(this.#explicit, host, wanted?.explicitPort ?? 0) : 0,
    };
  }

  /** Cuts everything. */
  async close(): Promise<void> {
    const servers = [this.#http, this.#tls, this.#explicit, ...this.#listeners].filter(({ listening }) => listening);
    const closed = servers.map((server) => new Promise((resolve) => server.close(resolve)));
    this.#interceptor.close();
    this.#accounts.forgetAll();
    this.#pool.forgetAll();
    this.#sessions.forgetAll();
    await Promise.all(closed);
  }

  /** For a sandbox that has come, or has other secrets: what its first connections to the hosts that these name will need is made meanwhile. */
  prepare({ secrets, authority }: Pick<EgressClient, "secrets" | "authority">): void {
    if (authority === null) return;
    const names = secrets.flatMap(({ allowedHosts }) => allowedHosts).filter((host) => !host.startsWith("*."));
    this.#interceptor.prepare(authority, Array.from(new Set(names)).slice(0, maxPrepared));
  }

  /** After a change of a policy or of its secrets: cuts what it no longer allows, and leaves the rest. */
  recheck(address: string): void {
    this.#accounts.recheck(address);
    const policy = this.#find(address)?.policy;
    for (const pool of [this.#pool, this.#sessions]) {
      if (policy === undefined) pool.forget(address);
      else {
        pool.prune(
          address,
          (wanted, server) =>
            connectTo(policy, wanted).allowed && policy.connectResolved(server, wanted.port, "tcp").allowed,
        );
      }
    }
  }

  /** After the end of a sandbox: cuts all that it has, and forgets its figures. */
  forget(address: string): void {
    this.#accounts.forget(address);
    this.#pool.forget(address);
    this.#sessions.forget(address);
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

function compileSecrets(secrets: readonly Secret[]): SecretSet {
  return SecretSet.compile(secrets);
}

async function listenOn(server: Server, host: string, port: number): Promise<number> {
  server.listen({ host, port, backlog });
  await once(server, "listening"); // throws on "error"
  return (server.address() as AddressInfo).port;
}
