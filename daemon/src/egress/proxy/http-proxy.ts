import { IncomingMessage, ServerResponse, createServer, type Server } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Connection } from "./connection.js";
import { Exchange } from "./exchange.js";
import { sayRefusedRaw } from "./http-refusal.js";
import { wantsWebSocket, type Scope } from "./http-target.js";
import { Http1Client, type Http1Link } from "./http1-client.js";
import { maxHeadBytes } from "./http1-upstream.js";
import { waitingBytes } from "./streams.js";
import { tcpKeepAlive, type Timings } from "./timings.js";
import type { Upstreams } from "./upstreams.js";

/** requests that a client may send ahead; they are served one after the other */
const maxWaiting = 32;

const upgradable = new WeakSet<IncomingMessage>();

/** A request that Node takes for an upgrade only where it is one to WebSocket, so that all others are served without. */
class ProxiedRequest extends IncomingMessage {
  get upgrade(): boolean {
    return upgradable.has(this) && (this.method === "CONNECT" || wantsWebSocket(this));
  }

  /** Node sets it, first when this object is not yet constructed. */
  set upgrade(upgrade: boolean | null) {
    if (upgrade === true) upgradable.add(this);
    else upgradable.delete(this);
  }
}

/** A connection with its requests. */
interface Link extends Http1Link {
  readonly connection: Connection;
  readonly waiting: (() => void)[];
  busy: boolean;
  /** nothing more of what comes is looked at */
  failed: boolean;
}

interface ServesConnect {
  serve(connection: Connection, request: IncomingMessage, head: Buffer): void;
}

export interface HttpProxyOptions {
  readonly timings: Timings;
  readonly upstreams: Upstreams;
  /** who takes connections over that ask for a tunnel; null: nobody may */
  readonly connect: ServesConnect | null;
}

/** Lets HTTP requests through to the names in their Host fields, where the policy allows it, each for itself. */
export class HttpProxy {
  /** for those to listen with whose connections speak HTTP from the first byte on; every one is given to `admit` first */
  readonly server: Server;
  readonly #options: HttpProxyOptions;
  readonly #links = new WeakMap<Duplex, Link>();

  constructor(options: HttpProxyOptions, admit: (socket: Socket) => Connection | null, scope: Scope) {
    this.#options = options;
    const { timings } = options;
    this.server = createServer({
      IncomingMessage: ProxiedRequest,
      maxHeaderSize: maxHeadBytes,
      highWaterMark: waitingBytes,
      insecureHTTPParser: false,
      headersTimeout: timings.headers,
      requestTimeout: 0, // bodies may take as long as they like
      keepAliveTimeout: timings.keep,
      connectionsCheckingInterval: timings.check,
      requireHostHeader: false, // looked at by ourselves, so that it is audited
      noDelay: true,
      ...tcpKeepAlive,
    });
    this.server.maxHeadersCount = 0; // bounded by their size; the default drops what is beyond 2,000 in silence
    this.server.prependListener("connection", (socket: Socket) => {
      if (this.#links.has(socket)) return;
      const connection = admit(socket);
      if (connection !== null) this.#link(connection, socket, scope);
    });
    const serve = (request: IncomingMessage, response: ServerResponse): void => this.#queue(request, response);
    this.server.on("request", serve).on("checkContinue", serve).on("checkExpectation", serve);
    this.server.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
    this.server.on("connect", (request, socket, head) => this.#connect(request, socket, head));
    this.server.on("clientError", (error: NodeJS.ErrnoException, socket) => this.#broken(error, socket));
  }

  /** Serves a connection whose bytes come out of `stream`. */
  serve(connection: Connection, stream: Duplex, scope: Scope): void {
    this.#link(connection, stream, scope);
    this.server.emit("connection", stream);
  }

  #link(connection: Connection, stream: Duplex, scope: Scope): void {
    const cut = (): void => connection.cut();
    const lingerMs = this.#options.timings.linger;
    this.#links.set(stream, { ...scope, connection, stream, cut, lingerMs, waiting: [], busy: false, failed: false });
  }

  #queue(request: IncomingMessage, response: ServerResponse): void {
    const link = this.#links.get(request.socket);
    if (link === undefined) {
      request.socket.destroy();
      return;
    }
    if (link.failed) return; // the connection ends with the answer that is being sent
    if (link.waiting.length >= maxWaiting) {
      link.failed = true;
      link.waiting.length = 0;
      link.connection.decide({ name: null, address: null, allowed: false, rule: "too many requests sent ahead" });
      link.connection.cut();
      return;
    }
    link.waiting.push(() => this.#serve(link, request, response, null));
    this.#next(link);
  }

  #next(link: Link): void {
    if (!link.busy && !link.failed && !link.stream.destroyed) link.waiting.shift()?.();
  }

  #serve(link: Link, request: IncomingMessage, response: ServerResponse, upgrade: Buffer | null): void {
    link.busy = true;
    response.once("close", () => {
      link.busy = false;
      this.#next(link);
    });
    try {
      const client = new Http1Client(link, { request, response, upgrade });
      const sound = new Exchange(link.connection, client, { ...this.#options, http2: false }).start();
      if (!sound) link.failed = true;
    } catch (error) {
      const rule = `internal error: ${String(error)}`;
      link.connection.decide({ name: null, address: null, allowed: false, rule });
      link.connection.cut();
    }
  }

  /** Node leaves the connection to us; an answer that is not the change over is written as any other. */
  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const link = this.#links.get(socket);
    if (link === undefined || link.busy || link.waiting.length > 0) {
      // its answer would have to wait for others, whose end nobody tells any more
      link?.connection.decide({ name: null, address: null, allowed: false, rule: "an upgrade sent ahead" });
      link?.connection.cut();
      return;
    }
    const stream = link.stream as unknown as Socket; // TLS or plain, it is one of Node's
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(stream);
    response.once("finish", () => {
      response.detachSocket(stream);
      response.emit("close");
      stream.end();
      stream.resume();
    });
    this.#serve(link, request, response, head);
  }

  #connect(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const link = this.#links.get(socket);
    const { connect } = this.#options;
    if (link === undefined || connect === null || !link.explicit) this.#refuseRaw(socket, 405, "CONNECT");
    else if (link.busy || link.waiting.length > 0) this.#refuseRaw(socket, 400, "a CONNECT sent ahead");
    else if (!link.failed) {
      link.failed = true; // no request of its own comes any more
      connect.serve(link.connection, request, head);
    }
  }

  #broken(error: NodeJS.ErrnoException, socket: Duplex): void {
    const code = error.code ?? "";
    // more of what was refused already: it is read on for a while, so that the client gets to read the answer
    if (this.#links.get(socket)?.failed === true) return;
    if (code === "ECONNRESET" || code === "EPIPE" || !socket.writable) socket.destroy();
    else if (code === "ERR_HTTP_REQUEST_TIMEOUT") this.#refuseRaw(socket, 408, "no request in time");
    else if (code === "HPE_HEADER_OVERFLOW") this.#refuseRaw(socket, 431, "a head that is too large");
    else this.#refuseRaw(socket, 400, `a malformed request: ${code}`);
  }

  #refuseRaw(socket: Duplex, status: number, rule: string): void {
    const link = this.#links.get(socket);
    if (link === undefined) {
      socket.destroy();
      return;
    }
    if (link.failed) return; // more of what was refused already
    link.failed = true;
    link.connection.decide({ name: null, address: null, allowed: false, rule });
    if (link.busy) link.connection.cut();
    else sayRefusedRaw(link.stream, status, `the request is not allowed (${rule})`, this.#options.timings.linger);
  }
}
