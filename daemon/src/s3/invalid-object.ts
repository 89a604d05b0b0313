import { SquashError } from "@squash/sdk/errors";

/** An object of the bucket that cannot be used. */
export function invalidObject(key: string, what: string): SquashError {
  return new SquashError("s3_object_invalid", `Cannot use "${key}" in the bucket: ${what}`, { details: { key } });
}
