import { SquashError } from "@squash/sdk/errors";

/** An object of the bucket that cannot be used; `what` says why, such as "it is encrypted". Its key is in `details.key`. */
export function invalidObject(key: string, what: string, cause?: unknown): SquashError {
  return new SquashError("s3_object_invalid", `Cannot use "${key}" in the bucket: ${what}`, {
    details: { key },
    ...(cause !== undefined && { cause }),
  });
}
