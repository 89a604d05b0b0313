import { parentPort } from "node:worker_threads";
import type { DiskAnswer, DiskRequest } from "./disk.js";
import { doDiskJob } from "./disk-job.js";

// What `Disk` starts: does jobs in the order in which they come.
parentPort?.on("message", ({ id, job }: DiskRequest) => {
  let answer: DiskAnswer = { id, error: null };
  try {
    doDiskJob(job);
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    answer = { id, error: { message, code: code ?? "EIO" } };
  }
  parentPort?.postMessage(answer);
});
