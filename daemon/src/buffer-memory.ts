import { setFlagsFromString } from "node:v8";

/**
 * Has V8 free buffers in the thread that made them, for the whole process; to be called before any thread is started. Otherwise another thread does
 * that, and the allocator hands the next buffers out from where they were last touched by that one: bodies through the proxy take half as long again.
 * A V8 without the flag says so, and goes on.
 */
export function freeBuffersWhereMade(): void {
  setFlagsFromString("--no-concurrent-array-buffer-sweeping");
}
