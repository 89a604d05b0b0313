import type { Duplex, Readable } from "node:stream";
import type { SecretUse } from "./grants.js";

/** Names and values in the order they came; a character of a value is a byte (latin1), as Node's parsers give them. */
export type Fields = [string, string][];

/** What the proxy knows of a request before its body. */
export interface RequestHead {
  readonly method: string;
  /** name that was checked, in lower case, without a port */
  readonly host: string;
  /** what the Host field or `:authority` says, with the port where there is one; absent: `host` */
  readonly authority?: string;
  /** whether it goes to the server over TLS */
  readonly secure: boolean;
  /** path and query, or `*` */
  readonly target: string;
  /** without pseudo-fields and without what is for the next machine only (Connection, Transfer-Encoding, Upgrade …) */
  readonly headers: readonly (readonly [string, string])[];
  readonly hasBody: boolean;
  /** bytes; null where it is not told */
  readonly contentLength: number | null;
  /** that it asks to change over to WebSocket: by the Upgrade field, or by an extended CONNECT */
  readonly webSocket: boolean;
}

/** What goes to the server in place of a request. */
export interface Outgoing {
  readonly target: string;
  /** has a Content-Length only where `contentLength` is a number */
  readonly headers: Fields;
  /** bytes of `body`; 0 without one; null: not known, so that the framing is chunked or HTTP/2's own */
  readonly contentLength: number | null;
  /** ends with an error, `SecretRefusal` or `UnreadableContent`, where what the client sends must not go on; the client's stream is left open then */
  readonly body: Readable | null;
}

/** One request, with the secrets that may go with it. */
export interface RequestSubstitution {
  /** that `send` waits for the body, up to a limit: a client that waits for `100 Continue` is to be told so before */
  readonly collects: boolean;
  /**
   * What is to be sent. Reads `body` from here on, which is null for a request without one.
   * Rejects with `SecretRefusal` or `UnreadableContent`; the client's stream is left open then.
   */
  send(body: Readable | null): Promise<Outgoing>;
  /** Fields after the body, once it has ended. Throws `SecretRefusal`. */
  trailers(fields: readonly (readonly [string, string])[]): Fields;
  /**
   * Both directions of the connection after the change to WebSocket; null for other requests. Each ends with an error where a
   * placeholder shows up that may not go, or where the frames are not RFC 6455's.
   */
  readonly webSocket: { readonly toServer: Duplex; readonly toClient: Duplex } | null;
  /** Names of the secrets put in so far, in order. */
  used(): readonly string[];
  /** The same, with where they were put in; for the audit. */
  uses(): readonly SecretUse[];
  /**
   * After an answer 401. True where a token that was put in is another one now, so that the request may be sent once more, as a new one
   * from `SecretSet.request` on. Rejects with `SecretRefusal`.
   */
  renew(): Promise<boolean>;
  /** What keeps values out of the answer to this request. */
  readonly answer: ResponseScrub;
}

/** What the client gets in place of an answer. */
export interface ScrubbedAnswer {
  /** has no Content-Length where `contentLength` is null and there is a body; no Content-Encoding where the body was decoded */
  readonly headers: Fields;
  /** to pass the body through; null: it passes as it is. A stream ends with `UnreadableContent` where it cannot be decoded */
  readonly body: Duplex | Pieces | null;
}

/** What a body passes through piece by piece, without waiting for anything. */
export interface Pieces {
  /** What comes out of a piece. */
  push(chunk: Buffer): Buffer[];
  /** What comes out at the end. */
  end(): Buffer[];
}

export interface ResponseScrub {
  /**
   * For final and informational answers. `hasBody`: false for answers to HEAD, for 1xx, 204 and 304.
   * Throws `UnreadableContent` for a body in a coding that is not known.
   */
  head(status: number, headers: readonly (readonly [string, string])[], hasBody: boolean): ScrubbedAnswer;
  /** The text after the status. */
  text(statusText: string): string;
  trailers(fields: readonly (readonly [string, string])[]): Fields;
}
