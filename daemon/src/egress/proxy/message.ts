import type { Duplex, Readable, Writable } from "node:stream";
import type { Fields } from "../secrets/substitution.js";

export type { Fields };
export type ReadFields = readonly (readonly [string, string])[];

/** A request that is refused whatever the policy says, since it is not certain what it means or for whom it is. */
export class BadRequest extends Error {
  override readonly name = "BadRequest";
  readonly status: 400 | 421;

  constructor(message: string, status: 400 | 421 = 400) {
    super(message);
    this.status = status;
  }
}

/** What a client asks for, whichever version of HTTP it speaks. */
export interface Asked {
  readonly method: string;
  readonly name: string;
  readonly port: number;
  /** whether it goes to the server over TLS */
  readonly secure: boolean;
  /** path and query as the client wrote them, or `*` */
  readonly path: string;
  /** what is passed on, with a Host field, without what is for the next machine only */
  readonly fields: Fields;
  readonly hasBody: boolean;
  /** bytes; null where it is not told */
  readonly contentLength: number | null;
  readonly webSocket: boolean;
  /** that the client takes trailers after the answer */
  readonly takesTrailers: boolean;
  /** that the client waits for `100 Continue` before its body */
  readonly expectsContinue: boolean;
}

export interface AnswerHead {
  readonly status: number;
  readonly text: string;
  readonly fields: Fields;
}

/** An answer of a server, with what is for the next machine only left out. */
export interface Answer extends AnswerHead {
  readonly body: Readable;
  /** that fields may follow the body, as its framing has it */
  readonly mayHaveTrailers: boolean;
  /** that its head says that nothing comes after it. gRPC tells failures so, and clients take the same head with an empty body for another thing */
  readonly ends: boolean;
  /** whether the body that has ended was all of it */
  isWhole(): boolean;
  /** once the body has ended */
  trailers(): Fields;
}

/** The client's side of one request. */
export interface ClientSide {
  /** Throws `BadRequest`. */
  read(): Asked;
  readonly body: Readable;
  /** whether the body that has ended was all of it */
  isWhole(): boolean;
  /** once the body has ended */
  trailers(): Fields;
  /** whether nothing can be answered any more */
  readonly gone: boolean;
  /** Sends the head of an informational answer. */
  inform(head: AnswerHead): void;
  /** Sends the head of the answer; false, and nothing was sent, where it cannot be written. */
  answer(head: AnswerHead, framing: Pick<Answer, "mayHaveTrailers" | "ends">): boolean;
  /** where the answer's body goes */
  readonly sink: Writable;
  readonly answered: boolean;
  /** Ends the answer. */
  end(trailers: Fields): void;
  /** Answers in place of the server. */
  say(status: number, text: string): void;
  /** Ends it so that half an answer does not pass for a whole one. */
  cut(): void;
  /** Called once, when the answer was sent or the client is gone. */
  onClose(listener: () => void): void;
  /** Changes over to WebSocket: what the connection carries from here on, the first bytes of the client put back. */
  changeOver(head: AnswerHead): Duplex;
}
