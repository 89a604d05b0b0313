import { SquashError } from "@squash/sdk/errors";

/** What the kernel says, as sq-host tells it. */
export function kernelError(what: string, errno: string): SquashError {
  return new SquashError("kernel", `Cannot ${what}: ${errno}`, { details: { errno } });
}
