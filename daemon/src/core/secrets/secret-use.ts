import type { SecretLocation } from "./secret.js";

/** One request in which a secret's value was put in place of its placeholder, or in which that was refused. Never with a value. */
export interface SecretUse {
  /** when it was decided */
  readonly time: string;
  readonly sandbox: string;
  /** its name */
  readonly secret: string;
  readonly host: string;
  readonly method: string;
  /** with its query, as the sandbox sent it, so with placeholders at most; cut off where it is long */
  readonly path: string;
  /** where the placeholder stood */
  readonly locations: readonly SecretLocation[];
  /** of the answer; null where there was none */
  readonly status: number | null;
  /** of the body that was sent; 0 where nothing was */
  readonly bytes: number;
  readonly allowed: boolean;
  /** why not; null where it was allowed */
  readonly reason: string | null;
}
