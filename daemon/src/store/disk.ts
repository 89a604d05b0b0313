import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import type { DiskJob } from "./disk-job.js";

export interface DiskRequest {
  readonly id: number;
  readonly job: DiskJob;
}

export interface DiskAnswer {
  readonly id: number;
  readonly error: { readonly message: string; readonly code: string } | null;
}

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

// by name, so that it is found from the sources as well, where only the compiled thread can run
const thread = createRequire(import.meta.url).resolve("#disk-thread");

/**
 * Does small file work in a thread of its own: one trip for a whole job, where the asynchronous calls take one for each system call, and a
 * disk that stalls holds up only those who wait for it.
 */
export class Disk {
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | null = null;
  #nextId = 1;

  /** Throws an error with the system call's `code`. */
  run(job: DiskJob): Promise<void> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const worker = (this.#worker ??= this.#start());
      this.#waiting.set(id, { resolve, reject });
      worker.ref(); // the process stays while somebody waits
      worker.postMessage({ id, job } satisfies DiskRequest);
    });
  }

  #start(): Worker {
    const worker = new Worker(thread, { name: "disk" });
    worker.on("message", (answer: DiskAnswer) => this.#settle(answer, worker));
    worker.on("error", (error) => this.#lost(worker, error));
    worker.on("exit", (status) => this.#lost(worker, new Error(`the disk thread ended with status ${status}`)));
    return worker;
  }

  #settle({ id, error }: DiskAnswer, worker: Worker): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) worker.unref();
    if (error === null) waiting?.resolve();
    else waiting?.reject(Object.assign(new Error(error.message), { code: error.code }));
  }

  /** Whoever waited learns it; the next job starts a new thread. */
  #lost(worker: Worker, error: Error): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
