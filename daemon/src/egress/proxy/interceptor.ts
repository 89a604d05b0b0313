import { TLSSocket, type SecureContext } from "node:tls";
import type { Authority } from "../../core/secrets/authority.js";
import { LeafIssuer } from "../tls/leaf-issuer.js";
import type { Connection } from "./connection.js";
import { parseHostName } from "./host-name.js";
import type { HttpProxy } from "./http-proxy.js";
import type { Http2Proxy } from "./http2-proxy.js";
import { carriedBy } from "./reset-socket.js";
import { waitingBytes } from "./streams.js";
import type { Timings } from "./timings.js";

/** certificates that wait to be made ahead of their connections */
const maxAhead = 256;

/** Node takes it, though its types do not have it. */
const buffered = { highWaterMark: waitingBytes };

export interface InterceptorOptions {
  readonly timings: Timings;
  readonly http: Pick<HttpProxy, "serve">;
  readonly http2: Pick<Http2Proxy, "serve">;
  /** what issues leaves; another one than ours only in tests */
  readonly issuer?: (authority: Authority) => Pick<LeafIssuer, "contextFor" | "has">;
}

/** Is the TLS server of a host, for clients that trust our authority, and has the requests within served. */
export class Interceptor {
  readonly #options: InterceptorOptions;
  readonly #issuers = new WeakMap<Authority, Pick<LeafIssuer, "contextFor" | "has">>();
  readonly #ahead: { readonly authority: Authority; readonly host: string }[] = [];
  #making: NodeJS.Immediate | null = null;

  constructor(options: InterceptorOptions) {
    this.#options = options;
  }

  /** Takes a connection over whose ClientHello is the next that is read from it, and whose name was allowed. */
  intercept(connection: Connection, name: string, authority: Authority): void {
    const { client } = connection;
    connection.intercepted = true;
    let secureContext: SecureContext;
    try {
      secureContext = this.#issuerOf(authority).contextFor(name);
    } catch (error) {
      connection.decide({ name, address: null, allowed: false, rule: `internal error: ${String(error)}` });
      connection.cut();
      return;
    }
    const tls = new TLSSocket(client, {
      ...{ isServer: true, secureContext, ALPNProtocols: ["h2", "http/1.1"] },
      ...buffered,
    });
    carriedBy(tls, client);
    const fail = (rule: string): void => {
      clearTimeout(timer);
      connection.decide({ name, address: null, allowed: false, rule });
      connection.cut();
    };
    const failed = (): void => fail("the client did not accept the proxy's certificate, or broke TLS off");
    const timer = setTimeout(() => fail("no TLS in time"), this.#options.timings.hello);
    client.once("close", () => clearTimeout(timer));
    tls.on("error", () => undefined); // what comes after the handshake, whoever serves it sees
    tls.once("error", failed);
    tls.once("secure", () => {
      clearTimeout(timer);
      tls.off("error", failed);
      // a second ClientHello may say something else than the first
      const servername: unknown = (tls as { servername?: unknown }).servername;
      if (typeof servername !== "string" || parseHostName(servername) !== name) fail("another server name than before");
      else this.#serve(connection, tls, name);
    });
  }

  /** Makes certificates of hosts that connections are to be expected to, each in a turn of its own. */
  prepare(authority: Authority, hosts: readonly string[]): void {
    const issuer = this.#issuerOf(authority); // also where there are none: what certificates of wildcards need is made ready with it
    const absent = hosts.filter((host) => !issuer.has(host));
    this.#ahead.push(...absent.slice(0, maxAhead - this.#ahead.length).map((host) => ({ authority, host })));
    this.#making ??= setImmediate(() => this.#makeNext());
  }

  /** Makes no more of them. */
  close(): void {
    this.#ahead.length = 0;
  }

  #makeNext(): void {
    this.#making = null;
    const next = this.#ahead.shift();
    if (next === undefined) return;
    const issuer = this.#issuerOf(next.authority);
    // many sandboxes have the same ones
    if (!issuer.has(next.host)) issuer.contextFor(next.host);
    this.#making = setImmediate(() => this.#makeNext());
  }

  #serve(connection: Connection, tls: TLSSocket, name: string): void {
    const { http, http2 } = this.#options;
    const scope = { secure: true, expected: name, explicit: false };
    (tls.alpnProtocol === "h2" ? http2 : http).serve(connection, tls, scope);
  }

  #issuerOf(authority: Authority): Pick<LeafIssuer, "contextFor" | "has"> {
    const { issuer: make = (of: Authority) => new LeafIssuer(of) } = this.#options;
    let issuer = this.#issuers.get(authority);
    if (issuer === undefined) this.#issuers.set(authority, (issuer = make(authority)));
    return issuer;
  }
}
