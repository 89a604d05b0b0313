import { SquashError } from "@squash/sdk/errors";

/** A `build_failed` for an image that cannot be used, or cannot be had; `found` says what is wrong with it. */
export function imageError(found: string, cause?: unknown): SquashError {
  return new SquashError("build_failed", `Cannot use the image: ${found}`, cause === undefined ? {} : { cause });
}

/** What an image says, cut and quoted so that it can stand in a message. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
