import { constants, performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { TLSSocket } from "node:tls";
import type { Connection } from "./connection.js";
import { Exchange } from "./exchange.js";
import type { Scope } from "./http-target.js";
import { Http2Client } from "./http2-client.js";
import { connectionWindow, http2Limits, maxResets } from "./http2-limits.js";
import type { Timings } from "./timings.js";
import type { Upstreams } from "./upstreams.js";

export interface Http2ProxyOptions {
  readonly timings: Timings;
  readonly upstreams: Upstreams;
}

/** Serves requests by HTTP/2 in connections that were intercepted. */
export class Http2Proxy {
  readonly #options: Http2ProxyOptions;

  constructor(options: Http2ProxyOptions) {
    this.#options = options;
  }

  serve(connection: Connection, stream: TLSSocket, scope: Scope): void {
    const session = performServerHandshake(stream, http2Limits);
    // a TLSSocket without a server of Node's is taken for one whose handshake is still to be waited for
    stream.emit("secureConnect");
    session.setLocalWindowSize(connectionWindow);
    new Http2Link(connection, session, { ...this.#options, scope });
  }
}

/** One connection with its requests, of which many may be under way. */
class Http2Link {
  readonly #connection: Connection;
  readonly #session: ServerHttp2Session;
  readonly #options: Http2ProxyOptions & { readonly scope: Scope };
  #open = 0;
  #timer: NodeJS.Timeout | null = null;
  #resets = maxResets.burst;
  #lastReset = performance.now();

  constructor(
    connection: Connection,
    session: ServerHttp2Session,
    options: Http2ProxyOptions & { readonly scope: Scope },
  ) {
    this.#connection = connection;
    this.#session = session;
    this.#options = options;
    session.on("error", () => connection.cut()); // what HTTP/2 does not allow, or more than it may take
    session.on("close", () => {
      this.#rest(null);
      connection.client.destroy();
    });
    session.on("stream", (stream, _headers, _flags, raw?: string[]) => this.#serve(stream, raw ?? []));
    this.#rest(options.timings.headers);
  }

  #serve(stream: ServerHttp2Stream, raw: readonly string[]): void {
    this.#open += 1;
    this.#rest(null);
    stream.on("error", () => undefined); // "close" follows
    stream.once("close", () => {
      this.#open -= 1;
      if (stream.rstCode === constants.NGHTTP2_CANCEL || stream.aborted) this.#noteReset();
      if (this.#open === 0 && !this.#session.destroyed) this.#rest(this.#options.timings.keep);
    });
    try {
      const client = new Http2Client(this.#options.scope, stream, raw);
      new Exchange(this.#connection, client, { ...this.#options, http2: true }).start();
    } catch (error) {
      this.#refuse(`internal error: ${String(error)}`);
    }
  }

  /** Waits so long for the next request, whatever else is sent; not at all with null. */
  #rest(ms: number | null): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer =
      ms === null ? null : setTimeout(() => this.#session.close(() => this.#connection.client.destroy()), ms);
  }

  /** Requests that are given up at once cost the client nothing, and us a connection each. */
  #noteReset(): void {
    const now = performance.now();
    this.#resets = Math.min(maxResets.burst, this.#resets + ((now - this.#lastReset) / 1_000) * maxResets.perS) - 1;
    this.#lastReset = now;
    if (this.#resets < 0 && !this.#session.destroyed) this.#refuse("too many requests given up");
  }

  #refuse(rule: string): void {
    const name = this.#options.scope.expected;
    this.#connection.decide({ name, address: null, port: 443, allowed: false, rule });
    this.#session.destroy(new Error(rule), constants.NGHTTP2_ENHANCE_YOUR_CALM);
    this.#connection.cut();
  }
}
