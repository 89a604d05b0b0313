import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex, Readable, Writable } from "node:stream";
import { passedOn, renderHead, trailersOf, valuesOf, without } from "./http-fields.js";
import { writeAuthority } from "./host.js";
import { sayRefused } from "./http-refusal.js";
import { checkFraming, hasBody, targetOf, type Scope } from "./http-target.js";
import type { AnswerHead, Asked, ClientSide, Fields } from "./message.js";
import { writeTogether } from "./streams.js";

/** A connection that speaks HTTP/1.1. */
export interface Http1Link extends Scope {
  /** what is read and written: the socket, or TLS on it */
  readonly stream: Duplex;
  /** Ends it so that what came is not taken for all. */
  readonly cut: () => void;
  /** how long a refused client may take to read why, in milliseconds */
  readonly lingerMs: number;
}

export interface Http1Messages {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** what the client sent after a request to change over to WebSocket; null for all other requests */
  readonly upgrade: Buffer | null;
}

/** One request by HTTP/1.0 or 1.1. */
export class Http1Client implements ClientSide {
  readonly #link: Http1Link;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #upgrade: Buffer | null;

  constructor(link: Http1Link, { request, response, upgrade }: Http1Messages) {
    this.#link = link;
    this.#request = request;
    this.#response = response;
    this.#upgrade = upgrade;
  }

  read(): Asked {
    const request = this.#request;
    const { rawHeaders } = request;
    const { name, port, path } = targetOf(request, this.#link);
    checkFraming(request);
    const chunked = valuesOf(rawHeaders, "transfer-encoding").length > 0;
    const [length] = valuesOf(rawHeaders, "content-length");
    const usual = this.#link.secure ? 443 : 80;
    const host = writeAuthority({ name, port }, usual);
    const fields = passedOn(rawHeaders);
    for (const field of fields) if (field[0].length === 4 && field[0].toLowerCase() === "host") field[1] = host;
    return {
      method: request.method ?? "",
      name,
      port,
      secure: this.#link.secure,
      path,
      fields: chunked ? fields : without(fields, "trailer"),
      hasBody: hasBody(request),
      contentLength: length === undefined ? null : Number(length),
      webSocket: this.#upgrade !== null,
      takesTrailers: /(?:^|,)\s*trailers\s*(?:,|$)/i.test(valuesOf(rawHeaders, "te").join()),
      expectsContinue: valuesOf(rawHeaders, "expect").join().toLowerCase() === "100-continue",
    };
  }

  get body(): Readable {
    return this.#request;
  }

  isWhole(): boolean {
    return this.#request.complete;
  }

  trailers(): Fields {
    return valuesOf(this.#request.rawHeaders, "transfer-encoding").length > 0 ? trailersOf(this.#request) : [];
  }

  get gone(): boolean {
    return this.#response.destroyed || this.#link.stream.destroyed;
  }

  inform({ status, text, fields }: AnswerHead): void {
    const { socket } = this.#response; // null while an earlier answer is being sent, which cannot be here
    if (this.#request.httpVersion !== "1.1" || socket === null) return;
    socket.write(renderHead(status, text, fields), "latin1");
  }

  answer({ status, text, fields }: AnswerHead, { mayHaveTrailers }: { mayHaveTrailers: boolean }): boolean {
    const response = this.#response;
    response.sendDate = false;
    // Node writes trailers into chunked bodies only, and insists on it
    const trailers =
      mayHaveTrailers &&
      this.#request.httpVersion === "1.1" &&
      this.#request.method !== "HEAD" &&
      !fields.some(([field]) => field.toLowerCase() === "content-length");
    try {
      response.writeHead(status, text, (trailers ? fields : without(fields, "trailer")).flat());
    } catch {
      // a status or a field that Node reads but does not write; nothing was sent
      return false;
    }
    writeTogether(response);
    response.flushHeaders();
    return true;
  }

  get sink(): Writable {
    return this.#response;
  }

  get answered(): boolean {
    return this.#response.headersSent;
  }

  end(trailers: Fields): void {
    if (trailers.length > 0) this.#response.addTrailers(trailers);
    this.#response.end();
  }

  say(status: number, text: string): void {
    sayRefused(this.#request, this.#response, { status, text, lingerMs: this.#link.lingerMs });
  }

  cut(): void {
    this.#link.cut();
  }

  onClose(listener: () => void): void {
    this.#response.once("close", () => {
      listener();
      this.#readOn();
    });
  }

  changeOver({ status, text, fields }: AnswerHead): Duplex {
    const { stream } = this.#link;
    this.#response.detachSocket(stream as never);
    const changed: Fields = [...fields, ["Connection", "Upgrade"], ["Upgrade", "websocket"]];
    stream.write(renderHead(status, text, changed), "latin1");
    if (this.#upgrade !== null && this.#upgrade.length > 0) stream.unshift(this.#upgrade);
    return stream;
  }

  /** Answered before the body was there: it is read for a while, since a reset would take the answer with it. */
  #readOn(): void {
    const { stream } = this.#link;
    if (this.#request.complete || stream.destroyed) return;
    this.#request.unpipe();
    this.#request.resume();
    const timer = setTimeout(() => stream.destroy(), this.#link.lingerMs);
    this.#request.once("end", () => clearTimeout(timer));
    stream.once("close", () => clearTimeout(timer));
  }
}
