import { request as startRequest, type ClientRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import type { Connection, Flow } from "./connection.js";
import { DialFailed, DialRefused, dial, type Resolve } from "./dial.js";
import { answerFields, renderHead, requestFields, trailersOf, upgradeFields } from "./http-fields.js";
import { sayRefused } from "./http-refusal.js";
import { BadRequest, checkFraming, hasBody, targetOf, valuesOf, type Target } from "./http-target.js";
import { splice } from "./splice.js";
import { tcpKeepAlive, type Timings } from "./timings.js";
import type { UpstreamPool, UpstreamRequestOptions } from "./upstream-pool.js";

export const maxHeadBytes = 64 * 1024;
/** informational answers to one request: nothing holds a server back that sends them to a client that reads none */
const maxInformational = 16;
/** asked again where a kept connection turns out to be closed */
const repeatable = new Set(["GET", "HEAD", "OPTIONS"]);

export interface ExchangeOptions {
  readonly resolve: Resolve;
  readonly ipv6: boolean;
  readonly timings: Timings;
  readonly pool: UpstreamPool;
  /** where servers listen, other than on 80 in tests */
  readonly port: number;
}

/** What the client sent after a request to change over to WebSocket. */
export interface Upgrade {
  readonly head: Buffer;
}

/** One request and its answer. */
export class Exchange {
  readonly #connection: Connection;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #upgrade: Upgrade | null;
  readonly #options: ExchangeOptions;
  readonly #flow: Flow & { name: string } = { name: "", address: null };
  #upstream: ClientRequest | null = null;
  #rule = "";
  #decided = false;
  #answered = false;
  /** the answer arrived as a whole, so that its connection may serve another request */
  #complete = false;
  #informational = 0;

  constructor(
    connection: Connection,
    messages: { request: IncomingMessage; response: ServerResponse; upgrade: Upgrade | null },
    options: ExchangeOptions,
  ) {
    this.#connection = connection;
    this.#request = messages.request;
    this.#response = messages.response;
    this.#upgrade = messages.upgrade;
    this.#options = options;
  }

  /** Decides on the request and passes it on, or says why not. False where nothing after it on its connection can be trusted. */
  start(): boolean {
    let target: Target;
    try {
      target = targetOf(this.#request);
      checkFraming(this.#request);
    } catch (error) {
      if (!(error instanceof BadRequest)) throw error;
      this.#refuse(error.message, { status: 400, name: null });
      return false;
    }
    const { name } = target;
    const verdict = this.#connection.policy()?.connectByName(name, this.#connection.port, "tcp");
    if (verdict === undefined) return false;
    if (!verdict.allowed) {
      this.#refuse(verdict.rule, { status: 403, name });
      return true;
    }
    this.#rule = verdict.rule;
    this.#flow.name = name;
    this.#connection.flow = this.#flow;
    this.#response.once("close", () => this.#end());
    this.#send(target, repeatable.has(this.#request.method ?? "") && !hasBody(this.#request) && this.#upgrade === null);
    return true;
  }

  #send(target: Target, again: boolean): void {
    const { name, path } = target;
    const { pool, timings } = this.#options;
    const allows = (address: string): boolean =>
      this.#connection.policy()?.connectResolved(address, this.#connection.port, "tcp").allowed ?? false;
    const then = this.#upgrade !== null ? "Upgrade" : again ? "keep-alive" : "close";
    const options: UpstreamRequestOptions = {
      agent: again ? pool.agentFor(this.#connection, name, allows) : pool.single(this.#connection),
      dial: () => dial(this.#connection, this.#flow, { ...this.#options, open: (host) => this.#open(host) }),
      method: this.#request.method ?? "",
      host: name,
      path,
      headers: requestFields(this.#request, name, then),
      setHost: false,
      maxHeaderSize: maxHeadBytes,
      insecureHTTPParser: false,
    };
    let upstream: ClientRequest;
    try {
      upstream = startRequest(options);
    } catch (error) {
      // Node's own idea of a method, path or field, stricter than that of its parser
      this.#refuse((error as Error).message, { status: 400, name });
      return;
    }
    this.#upstream = upstream;
    upstream.maxHeadersCount = 0; // bounded by their size; the default drops what is beyond 2,000 in silence
    upstream.once("socket", (socket) => {
      if (this.#connection.client.destroyed) {
        upstream.destroy();
        return;
      }
      this.#flow.address = socket.remoteAddress ?? null;
      this.#decide();
      upstream.setTimeout(timings.answer);
    });
    upstream.on("timeout", () => {
      if (!this.#answered) this.#fail(504, "no answer in time");
    });
    upstream.on("information", (information) => this.#inform(information));
    upstream.once("response", (answer) => this.#answer(answer));
    upstream.once("upgrade", (answer, socket, head) => this.#changeOver(answer, socket, head));
    upstream.on("error", (error) => {
      if (again && upstream.reusedSocket && !this.#answered && !this.#response.destroyed) this.#send(target, false);
      else this.#failed(error);
    });
    this.#sendBody(upstream);
  }

  #open(host: string): Socket {
    return connect({ host, port: this.#options.port, noDelay: true, ...tcpKeepAlive });
  }

  #sendBody(upstream: ClientRequest): void {
    const request = this.#request;
    if (!hasBody(request)) {
      upstream.end();
      return;
    }
    upstream.flushHeaders(); // the server may want to answer before there is a body
    request.pipe(upstream, { end: false });
    request.once("end", () => {
      if (valuesOf(request.rawHeaders, "transfer-encoding").length > 0) upstream.addTrailers(trailersOf(request));
      upstream.end();
    });
  }

  #inform(information: { statusCode: number; statusMessage: string; rawHeaders: string[] }): void {
    const { socket } = this.#response; // null while an earlier answer is being sent, which cannot be here
    if (this.#request.httpVersion !== "1.1" || socket === null || this.#answered) return;
    this.#informational += 1;
    if (this.#informational > maxInformational) this.#fail(502, "too many informational answers");
    else socket.write(renderHead(information.statusCode, information.statusMessage, information.rawHeaders), "latin1");
  }

  #answer(answer: IncomingMessage): void {
    const response = this.#response;
    const fields = answerFields(answer, this.#request);
    answer.on("error", () => this.#connection.cut()); // half an answer must not pass for a whole one
    if (fields === null || response.headersSent) {
      this.#fail(502, "an answer in an unknown coding");
      return;
    }
    this.#upstream?.setTimeout(0);
    this.#answered = true;
    response.sendDate = false;
    try {
      response.writeHead(answer.statusCode ?? 0, answer.statusMessage ?? "", fields);
    } catch {
      // a status or a field that Node reads but does not write; nothing was sent
      this.#answered = false;
      this.#fail(502, "an answer that cannot be passed on");
      return;
    }
    response.flushHeaders();
    answer.pipe(response, { end: false });
    answer.once("end", () => {
      this.#complete = true;
      if (valuesOf(answer.rawHeaders, "transfer-encoding").length > 0) response.addTrailers(trailersOf(answer));
      response.end();
    });
  }

  #changeOver(answer: IncomingMessage, server: Socket, head: Buffer): void {
    const { client } = this.#connection;
    const kind = valuesOf(answer.rawHeaders, "upgrade").join().toLowerCase();
    if (this.#upgrade === null || kind !== "websocket" || client.destroyed) {
      server.destroy();
      this.#fail(502, "a change of protocol that nobody asked for");
      return;
    }
    this.#answered = true;
    server.setTimeout(0);
    server.allowHalfOpen = true;
    this.#connection.attach(server);
    this.#response.detachSocket(client);
    client.write(renderHead(101, answer.statusMessage ?? "", upgradeFields(answer)), "latin1");
    if (head.length > 0) client.write(head);
    if (this.#upgrade.head.length > 0) server.write(this.#upgrade.head);
    server.pipe(client, { end: false });
    splice(client, server);
  }

  #failed(error: Error): void {
    if (error instanceof DialRefused) {
      this.#refuse(error.rule, { status: 403, name: this.#flow.name, address: error.address });
    } else if (error instanceof DialFailed) {
      if (error.reason !== "gone") this.#fail(error.reason === "too slow" ? 504 : 502, error.reason);
    } else {
      this.#fail(502, "the connection broke");
    }
  }

  /** The server is at fault. */
  #fail(status: number, why: string): void {
    if (this.#response.destroyed || this.#connection.client.destroyed) return;
    this.#decide();
    if (this.#answered || this.#response.headersSent) this.#connection.cut();
    else this.#say(status, `cannot reach ${this.#flow.name} (${why})`);
  }

  #refuse(rule: string, what: { status: number; name: string | null; address?: string | null }): void {
    this.#connection.flow = null;
    this.#connection.decide({ name: what.name, address: what.address ?? null, allowed: false, rule });
    this.#say(what.status, `${what.name === null ? "the request" : `egress to ${what.name}`} is not allowed (${rule})`);
  }

  #say(status: number, text: string): void {
    this.#upstream?.destroy();
    sayRefused(this.#request, this.#response, { status, text, lingerMs: this.#options.timings.linger });
  }

  #decide(): void {
    if (this.#decided) return;
    this.#decided = true;
    this.#connection.decide({ name: this.#flow.name, address: this.#flow.address, allowed: true, rule: this.#rule });
  }

  /** The answer was sent, or the client is gone. */
  #end(): void {
    if (this.#connection.flow === this.#flow) this.#connection.flow = null;
    if (this.#upstream?.writableFinished !== true || !this.#complete) this.#upstream?.destroy();
    if (this.#request.complete || this.#connection.client.destroyed) return;
    // answered before the body was there: it is read for a while, since a reset would take the answer with it
    this.#request.unpipe();
    this.#request.resume();
    const timer = setTimeout(() => this.#connection.client.destroy(), this.#options.timings.linger);
    this.#request.once("end", () => clearTimeout(timer));
    this.#connection.client.once("close", () => clearTimeout(timer));
  }
}
