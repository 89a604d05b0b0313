import { isSquashError } from "@squash/sdk/errors";
import { pause } from "./pause.js";

const tries = 30;
const pauseMs = 1_000;

/** Does what goes through a sandbox's files, of which sq-host does so many at a time: one more has made nothing, and is tried again. */
export async function untilFree<T>(work: () => Promise<T>): Promise<T> {
  for (let done = 1; ; done++) {
    try {
      return await work();
    } catch (error) {
      if (!isSquashError(error) || error.details["errno"] !== "EAGAIN" || done === tries) throw error;
      await pause(pauseMs);
    }
  }
}
