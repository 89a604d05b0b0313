import type { ErrorCode } from "./protocol.js";

const brand = Symbol.for("squash.error");

/** An error a caller can act on: `code` says what happened, `message` says it in words, `cause` keeps the original. */
export class SquashError extends Error {
  override readonly name: string = "SquashError";
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;
  readonly [brand] = true;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; details?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** True for a `SquashError` of any copy of this package. */
export function isSquashError(error: unknown): error is SquashError {
  return error instanceof Error && brand in error;
}
