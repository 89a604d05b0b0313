import { constants, type ServerHttp2Stream } from "node:http2";
import type { Duplex, Readable, Writable } from "node:stream";
import { pairs, trailerFields, valuesOf, without } from "./http-fields.js";
import { authorityOf, type Scope } from "./http-target.js";
import { fieldsOf, headersOf, pseudo } from "./http2-fields.js";
import { BadRequest, type AnswerHead, type Asked, type ClientSide, type Fields } from "./message.js";

/** One request by HTTP/2. */
export class Http2Client implements ClientSide {
  readonly #scope: Scope;
  readonly #stream: ServerHttp2Stream;
  readonly #raw: readonly string[];
  #received: Fields = [];
  #sent: Fields = [];
  /** whether the end of its answer is that of the trailers */
  #waits = false;

  /** `raw` are the fields in the form of `rawHeaders`. */
  constructor(scope: Scope, stream: ServerHttp2Stream, raw: readonly string[]) {
    this.#scope = scope;
    this.#stream = stream;
    this.#raw = raw;
    stream.on("trailers", (_headers: unknown, _flags: unknown, fields: string[]) => {
      this.#received = trailerFields(pairs(fields));
    });
    stream.on("wantTrailers", () => {
      try {
        stream.sendTrailers(headersOf(this.#sent));
      } catch {
        this.cut(); // a field that HTTP/2 has no place for: without it, what is there is not the whole
      }
      setImmediate(() => this.#letGo()); // they are on their way only then
    });
    stream.once("finish", () => {
      if (!this.#waits) this.#letGo();
    });
  }

  read(): Asked {
    const raw = this.#raw;
    const [method, path] = [pseudo(raw, ":method"), pseudo(raw, ":path")];
    if (method === null || method === "CONNECT" || path === null || pseudo(raw, ":scheme") !== "https")
      throw new BadRequest("a request that is not one for an https URL");
    if (!path.startsWith("/") && !(path === "*" && method === "OPTIONS"))
      throw new BadRequest("a target that is not a path");
    const { name, port } = this.#authority();
    if (raw.some((text) => /[\r\n\0]/.test(text))) throw new BadRequest("a field of more than one line");
    const lengths = valuesOf(raw, "content-length");
    if (lengths.length > 1 || !/^[0-9]{0,15}$/.test(lengths[0] ?? ""))
      throw new BadRequest("a body of more than one length");
    return {
      ...{ method, path, name, port, secure: true },
      fields: [["host", name], ...joinedCookies(without(fieldsOf(raw), "host"))],
      hasBody: !this.#stream.endAfterHeaders,
      contentLength: lengths[0] === undefined ? null : Number(lengths[0]),
      webSocket: false,
      takesTrailers: valuesOf(raw, "te").join().toLowerCase() === "trailers",
      expectsContinue: valuesOf(raw, "expect").join().toLowerCase() === "100-continue",
    };
  }

  get body(): Readable {
    return this.#stream;
  }

  isWhole(): boolean {
    return !this.#stream.aborted && this.#stream.rstCode === constants.NGHTTP2_NO_ERROR;
  }

  trailers(): Fields {
    return this.#received;
  }

  get gone(): boolean {
    return this.#stream.destroyed || this.#stream.closed;
  }

  inform({ status, fields }: AnswerHead): void {
    this.#stream.additionalHeaders({ ":status": status, ...headersOf(fields) });
  }

  answer(
    { status, fields }: AnswerHead,
    { mayHaveTrailers, ends }: { mayHaveTrailers: boolean; ends: boolean },
  ): boolean {
    const head = { ":status": status, ...headersOf(fields) };
    try {
      this.#stream.respond(head, ends ? { endStream: true } : { waitForTrailers: mayHaveTrailers });
      this.#waits = mayHaveTrailers;
    } catch {
      // a status or a field that HTTP/1.1 has and HTTP/2 has not; nothing was sent
      return false;
    }
    return true;
  }

  get sink(): Writable {
    return this.#stream;
  }

  get answered(): boolean {
    return this.#stream.headersSent;
  }

  end(trailers: Fields): void {
    this.#sent = trailers;
    this.#stream.end();
  }

  /** All was said before all was asked: the client need not go on. */
  #letGo(): void {
    const stream = this.#stream;
    if (!stream.readableEnded && !stream.destroyed) stream.close(constants.NGHTTP2_NO_ERROR);
  }

  say(status: number, text: string): void {
    if (this.gone || this.answered) return;
    const body = Buffer.from(`squash: ${text}\n`);
    this.#stream.unpipe();
    this.#stream.respond({
      ":status": status,
      "content-type": "text/plain; charset=utf-8",
      "content-length": body.length,
    });
    this.#stream.end(body);
  }

  cut(): void {
    // not by close(), which sends an orderly end before the error
    this.#stream.destroy(new Error("cut off"));
  }

  onClose(listener: () => void): void {
    this.#stream.once("close", listener);
  }

  changeOver(): Duplex {
    throw new Error("HTTP/2 was not offered to change over");
  }

  /** `:authority` and Host, of which one may be absent. */
  #authority(): { readonly name: string; readonly port: number } {
    const hosts = valuesOf(this.#raw, "host");
    const authority = pseudo(this.#raw, ":authority");
    const first = authority ?? hosts[0];
    if (first === undefined || hosts.length > 1) throw new BadRequest("no name, or more than one");
    const found = authorityOf(first, this.#scope, authority === null ? "a Host field" : "an :authority");
    for (const host of hosts) authorityOf(host, this.#scope, "a Host field");
    return found;
  }
}

/** HTTP/1.1 has one Cookie field only. Source: RFC 9113, section 8.2.3 */
function joinedCookies(fields: Fields): Fields {
  const cookies = fields.filter(([field]) => field === "cookie");
  if (cookies.length < 2) return fields;
  const joined: [string, string] = ["cookie", cookies.map(([, value]) => value).join("; ")];
  return [...fields.filter(([field]) => field !== "cookie"), joined];
}
