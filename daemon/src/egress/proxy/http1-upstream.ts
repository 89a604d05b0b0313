import { request as startRequest, type Agent, type ClientRequest, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Writable } from "node:stream";
import { passedOn, trailersOf, valuesOf } from "./http-fields.js";
import { isChunked } from "./http-target.js";
import type { Answer, Fields } from "./message.js";
import { BadAnswer, type Call, type CallEvents, type UpstreamCall } from "./upstream-call.js";
import type { UpstreamRequestOptions } from "./upstream-pool.js";

export const maxHeadBytes = 64 * 1024;
/** Methods that Node takes to have no body unless it is told, and so gives no length. */
const bodiless = new Set(["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"]);

export interface Http1Connections {
  readonly agent: Agent;
  /** whether the connection is kept for other requests */
  readonly keep: boolean;
  readonly dial: () => Promise<Socket>;
  /** Called when there is a connection, whichever it is. */
  readonly unneeded: () => void;
}

/** A request by HTTP/1.1. */
export class Http1Call implements UpstreamCall {
  readonly #request: ClientRequest;
  readonly #events: CallEvents;

  /** Throws where the method, the path or a field is one that Node does not write, though its parser reads it. */
  constructor(call: Call, { agent, keep, dial, unneeded }: Http1Connections, events: CallEvents) {
    const options: UpstreamRequestOptions = {
      agent,
      dial,
      method: call.method,
      path: call.path,
      headers: framed(call, keep),
      setHost: false,
      maxHeaderSize: maxHeadBytes,
      insecureHTTPParser: false,
    };
    const request = startRequest(options);
    this.#request = request;
    this.#events = events;
    request.maxHeadersCount = 0; // bounded by their size; the default drops what is beyond 2,000 in silence
    request.once("socket", (socket) => {
      unneeded();
      events.connected(socket.remoteAddress ?? null);
    });
    request.on("timeout", () => events.silent());
    request.on("information", ({ statusCode, statusMessage, rawHeaders }) =>
      events.informed({ status: statusCode, text: statusMessage, fields: passedOn(rawHeaders) }),
    );
    request.once("response", (answer) => this.#answered(answer));
    request.once("upgrade", (answer, socket, head) => {
      const kind = valuesOf(answer.rawHeaders, "upgrade").join().toLowerCase();
      if (kind === "websocket") events.changedOver(headOf(answer), socket, head);
      else {
        socket.destroy();
        events.failed(new BadAnswer("a change of protocol that nobody asked for"));
      }
    });
    request.on("error", (error) => events.failed(error));
    if (call.hasBody) request.flushHeaders(); // the server may want to answer before there is a body
  }

  get body(): Writable {
    return this.#request;
  }

  end(trailers: Fields): void {
    if (trailers.length > 0) this.#request.addTrailers(trailers);
    this.#request.end();
  }

  get sent(): boolean {
    return this.#request.writableFinished;
  }

  get reused(): boolean {
    return this.#request.reusedSocket;
  }

  allowSilence(ms: number): void {
    this.#request.setTimeout(ms);
  }

  destroy(): void {
    this.#request.destroy();
  }

  #answered(answer: IncomingMessage): void {
    const codings = valuesOf(answer.rawHeaders, "transfer-encoding");
    if (codings.length > 0 && !isChunked(codings)) {
      this.#events.failed(new BadAnswer("an answer in an unknown coding"));
      return;
    }
    const { status, text, fields } = headOf(answer);
    this.#events.answered({
      status,
      text,
      fields,
      body: answer,
      isWhole: () => answer.complete,
      mayHaveTrailers: codings.length > 0,
      ends: false,
      trailers: () => (codings.length > 0 ? trailersOf(answer) : []),
    } satisfies Answer);
  }
}

function headOf({ statusCode = 0, statusMessage = "", rawHeaders }: IncomingMessage): {
  status: number;
  text: string;
  fields: Fields;
} {
  return { status: statusCode, text: statusMessage, fields: passedOn(rawHeaders) };
}

/** The fields with what the framing and this connection need, in the form of `rawHeaders`. */
function framed(call: Call, keep: boolean): string[] {
  const fields = call.fields.flat();
  const connection = call.webSocket ? "Upgrade" : keep ? "keep-alive" : "close";
  const hasLength = call.contentLength !== null && valuesOf(fields, "content-length").length > 0;
  if (call.hasBody && call.contentLength === null) fields.push("Transfer-Encoding", "chunked");
  else if (!hasLength && call.hasBody) fields.push("Content-Length", String(call.contentLength));
  else if (!hasLength && !bodiless.has(call.method)) fields.push("Content-Length", "0");
  if (call.webSocket) fields.push("Upgrade", "websocket");
  if (call.takesTrailers) fields.push("TE", "trailers");
  fields.push("Connection", call.takesTrailers ? `${connection}, TE` : connection);
  return fields;
}
