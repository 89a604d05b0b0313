import type { Duplex, Writable } from "node:stream";
import type { Answer, AnswerHead, Fields } from "./message.js";

/** What is sent to a server. */
export interface Call {
  readonly method: string;
  readonly path: string;
  /** with a Host field */
  readonly fields: Fields;
  readonly hasBody: boolean;
  /** bytes; null where it is not told */
  readonly contentLength: number | null;
  readonly webSocket: boolean;
  /** whether trailers are taken */
  readonly takesTrailers: boolean;
}

/** A call that is under way. */
export interface UpstreamCall {
  /** where the request's body goes */
  readonly body: Writable;
  /** Ends the request. */
  end(trailers: Fields): void;
  /** whether the server has all of the request */
  readonly sent: boolean;
  /** whether it goes over a connection that served another one before */
  readonly reused: boolean;
  /** How long the server may be silent, in milliseconds; 0 for ever. */
  allowSilence(ms: number): void;
  destroy(): void;
}

/** What becomes of a call. */
export interface CallEvents {
  /** It has a connection, to this address. */
  connected(address: string | null): void;
  informed(head: AnswerHead): void;
  answered(answer: Answer): void;
  /** The server changed over to another protocol. */
  changedOver(head: AnswerHead, stream: Duplex, first: Buffer): void;
  silent(): void;
  /** No answer will come. */
  failed(error: Error): void;
}

/** An answer that cannot be passed on. */
export class BadAnswer extends Error {
  override readonly name = "BadAnswer";
}
