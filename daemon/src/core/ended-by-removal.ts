import { pause } from "./pause.js";

/** again and again, as the file may not be there yet */
const removeEveryMs = 50;

/** Waits for work that ends, and fails, once the file that it writes is removed: which is done as soon as `signal` aborts. */
export async function endedByRemoval<T>(
  work: () => Promise<T>,
  remove: () => Promise<unknown>,
  signal: AbortSignal,
): Promise<T> {
  const ended = new AbortController();
  const undo = async (): Promise<void> => {
    while (!ended.signal.aborted) {
      await remove().catch(() => undefined); // tried again
      await pause(removeEveryMs, ended.signal);
    }
  };
  const onAbort = (): void => void undo();
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await work();
  } finally {
    ended.abort();
    signal.removeEventListener("abort", onAbort);
  }
}
