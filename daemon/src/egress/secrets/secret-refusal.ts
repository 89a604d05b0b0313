import type { SecretLocation } from "../../core/secrets/secret.js";

/**
 * Where a placeholder was found that may not go: a place in the request, the signature of an AWS request, or none, for the access token
 * that a secret stands for could not be got.
 */
export type RefusedPlace = SecretLocation | "signature" | "token";

/**
 * A request that is not sent, since a placeholder is in it which may not go with it. The message says which, where, why and what to do;
 * it holds no value and nothing that the client or a server wrote, apart from names that were checked.
 */
export class SecretRefusal extends Error {
  override readonly name = "SecretRefusal";
  /** name of the secret */
  readonly secret: string;
  readonly where: RefusedPlace;
  /** why, in words, without a final period */
  readonly reason: string;

  constructor(secret: string, where: RefusedPlace, reason: string) {
    super(`Cannot send the placeholder of secret "${secret}" in the ${phrase[where]}: ${reason}`);
    this.secret = secret;
    this.where = where;
    this.reason = reason;
  }
}

const phrase: Readonly<Record<RefusedPlace, string>> = {
  header: "header fields",
  basic: "credentials of Authorization: Basic",
  query: "path or query",
  body: "body",
  websocket: "messages of a WebSocket",
  signature: "signature of AWS",
  token: "request",
};

/**
 * What is not passed on since nothing is known of what is in it: a body in a coding that is not known, one that does not decode or grows
 * beyond all measure, frames that are not as they should be. `side` says who wrote it. The message holds nothing of it.
 */
export class UnreadableContent extends Error {
  override readonly name = "UnreadableContent";
  readonly side: "client" | "server";

  constructor(side: "client" | "server", what: string) {
    super(`Cannot pass on ${what}`);
    this.side = side;
  }
}
