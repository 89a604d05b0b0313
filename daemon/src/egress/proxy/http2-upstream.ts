import { constants, type ClientHttp2Stream, type OutgoingHttpHeaders } from "node:http2";
import type { Writable } from "node:stream";
import { pairs, trailerFields } from "./http-fields.js";
import { fieldsOf, headersOf } from "./http2-fields.js";
import type { AnswerHead, Fields } from "./message.js";
import type { UpstreamSession } from "./session-pool.js";
import { BadAnswer, type Call, type CallEvents, type UpstreamCall } from "./upstream-call.js";

/** A request by HTTP/2. */
export class Http2Call implements UpstreamCall {
  readonly #stream: ClientHttp2Stream;
  #trailers: OutgoingHttpHeaders = {};
  #received: Fields = [];
  #settled = false;
  #whole = false;
  reused = false;

  /** Throws where a field is one that HTTP/2 has no place for. */
  constructor(call: Call, upstream: UpstreamSession, events: CallEvents) {
    const host = call.fields.find(([field]) => field.toLowerCase() === "host")?.[1] ?? "";
    const stream = upstream.session.request(
      {
        ":method": call.method,
        ":scheme": "https",
        ":authority": host,
        ":path": call.path,
        ...headersOf(call.fields.filter(([field]) => field.toLowerCase() !== "host")),
        ...(call.takesTrailers ? { te: "trailers" } : {}),
      },
      { endStream: !call.hasBody, waitForTrailers: call.hasBody },
    );
    this.#stream = stream;
    upstream.enter();
    stream.once("close", () => upstream.leave());
    stream.on("wantTrailers", () => stream.sendTrailers(this.#trailers));
    stream.on("headers", (_headers: unknown, _flags: unknown, raw: string[]) => events.informed(headOf(raw)));
    stream.on(
      "trailers",
      (_headers: unknown, _flags: unknown, raw: string[]) => (this.#received = trailerFields(pairs(raw))),
    );
    stream.once("response", (_headers: unknown, flags: number, raw: string[]) => {
      this.#settled = true;
      const answer = headOf(raw);
      const ends = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
      events.answered({
        ...answer,
        ...{ body: stream, mayHaveTrailers: !ends, ends },
        isWhole: () => stream.rstCode === 0, // a lost connection ends it, too
        trailers: () => this.#received,
      });
    });
    stream.on("timeout", () => events.silent());
    stream.on("error", (error: Error) => this.#fail(events, error));
    stream.on("close", () => this.#fail(events, new BadAnswer("no answer")));
  }

  get body(): Writable {
    return this.#stream;
  }

  end(trailers: Fields): void {
    this.#trailers = headersOf(trailers);
    if (!this.#stream.writableEnded) this.#stream.end();
  }

  get sent(): boolean {
    return this.#stream.writableFinished;
  }

  allowSilence(ms: number): void {
    this.#stream.setTimeout(ms);
  }

  destroy(): void {
    if (!this.#stream.destroyed) this.#stream.close(8); // CANCEL
  }

  #fail(events: CallEvents, error: Error): void {
    if (this.#settled) return;
    this.#settled = true;
    events.failed(error);
  }
}

function headOf(raw: readonly string[]): AnswerHead {
  const status = Number(pairs(raw).find(([name]) => name === ":status")?.[1] ?? 0);
  return { status, text: "", fields: fieldsOf(raw) };
}
