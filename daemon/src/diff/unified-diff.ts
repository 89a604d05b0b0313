import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";

export interface UnifiedDiffJob {
  readonly oldName: string;
  readonly newName: string;
  readonly old: string;
  readonly new: string;
}

// by name, so that it is found from the sources as well, where only the compiled thread can run
const thread = createRequire(import.meta.url).resolve("#diff-thread");
const deadlineMs = 10_000;
const memoryMb = 256;

/** Makes a unified diff in a thread of its own, as hostile texts can make it slow. Returns null when that takes too long or too much memory. */
export function unifiedDiff(job: UnifiedDiffJob): Promise<string | null> {
  return new Promise((resolve) => {
    const worker = new Worker(thread, {
      name: "diff",
      workerData: job,
      resourceLimits: { maxOldGenerationSizeMb: memoryMb },
    });
    const finish = (diff: string | null): void => {
      clearTimeout(timer);
      resolve(diff);
      void worker.terminate();
    };
    const timer = setTimeout(() => finish(null), deadlineMs);
    worker.once("message", (diff: string | null) => finish(diff));
    worker.once("error", () => finish(null));
    worker.once("exit", () => finish(null));
  });
}
