import { isSquashError } from "@squash/sdk/errors";

/** Errors that hold for all that could be tried next. */
const general = ["s3_unreachable", "s3_denied", "internal"];

/**
 * Does one thing of several. Whether it was done; `problems` gets what could not be, with the reason. What ends all is thrown: that it was called
 * off, that the bucket cannot be reached, or a bug.
 */
export async function attempt(
  problems: string[],
  what: string,
  { signal }: { readonly signal: AbortSignal },
  work: () => Promise<unknown>,
): Promise<boolean> {
  try {
    return (await work()) !== false;
  } catch (error) {
    const code = isSquashError(error) ? error.code : "internal";
    if (signal.aborted || general.includes(code)) throw error;
    problems.push(`${what}: ${(error as Error).message}`);
    return false;
  }
}
