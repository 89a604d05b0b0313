import { parentPort, workerData } from "node:worker_threads";
import { createTwoFilesPatch } from "diff";
import type { UnifiedDiffJob } from "./unified-diff.js";

const timeoutMs = 8000;

// What `unifiedDiff` starts: one job, one answer.
const job = workerData as UnifiedDiffJob;
const patch = createTwoFilesPatch(job.oldName, job.newName, job.old, job.new, undefined, undefined, {
  context: 3,
  timeout: timeoutMs,
});
parentPort?.postMessage(patch ?? null);
