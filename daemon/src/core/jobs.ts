import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { JobInfo } from "@squash/sdk/protocol";

/** What work in the background gets. */
export interface JobContext {
  readonly signal: AbortSignal;
  /** Says what begins, and where that is known which part of all is done, from 0 to 1. */
  readonly progress: (step: string, fraction?: number) => void;
}

export interface JobPlan {
  readonly kind: JobInfo["kind"];
  /** what it makes or changes */
  readonly module: string;
  /** Does it. Must come to its end soon once the signal aborts, and leave nothing then. */
  readonly run: (context: JobContext) => Promise<void>;
  /** What it made, once it has run; @default `module` */
  readonly made?: () => readonly string[];
  /** Called when it will never run, or has ended; undoes what was prepared for it. Must not throw. */
  readonly release?: () => Promise<void>;
}

interface Job {
  info: JobInfo;
  readonly plan: JobPlan;
  readonly abort: AbortController;
  readonly listeners: Set<() => void>;
  readonly ended: Promise<void>;
  end: () => void;
}

export interface JobsOptions {
  readonly newId: () => string;
  /** told of a job that has come to its end as it should */
  readonly done?: (info: JobInfo) => void;
  /** told of what failed by a bug, which callers are not told */
  readonly report: (error: unknown) => void;
  /** jobs at one time; @default 2 */
  readonly maxRunning?: number;
  /** jobs that wait; @default 16 */
  readonly maxQueued?: number;
  /** jobs that are over and are still listed; @default 100 */
  readonly maxKept?: number;
}

const maxLines = 50;
const maxStep = 200;

/** Work in the background: a few jobs at a time, in the order in which they came; the newest that are over stay listed. */
export class Jobs {
  readonly #options: Required<Omit<JobsOptions, "done">> & Pick<JobsOptions, "done">;
  readonly #jobs = new Map<string, Job>();
  #closed = false;

  constructor(options: JobsOptions) {
    this.#options = { maxRunning: 2, maxQueued: 16, maxKept: 100, ...options };
  }

  /** Throws `job_limit`, or `shutting_down`. */
  start(plan: JobPlan): JobInfo {
    const { newId, maxQueued } = this.#options;
    const problem = this.#closed
      ? new SquashError("shutting_down", "Cannot start a job: squashd is shutting down")
      : this.#in("queued").length >= maxQueued
        ? new SquashError("job_limit", `Cannot start a job: ${maxQueued} wait already; try again later`)
        : null;
    if (problem !== null) {
      void plan.release?.();
      throw problem;
    }
    const job = newJob(newId(), plan);
    this.#jobs.set(job.info.id, job);
    this.#advance();
    return job.info;
  }

  /** Does at once what somebody waits for, so that it must not wait for other jobs; it is listed as they are. Throws what it throws. */
  async track(plan: JobPlan): Promise<void> {
    if (this.#closed) throw new SquashError("shutting_down", "Cannot start a job: squashd is shutting down");
    const job = newJob(this.#options.newId(), plan);
    this.#jobs.set(job.info.id, job);
    const failure = await this.#run(job);
    if (failure !== null) throw failure.error;
  }

  /** Newest first. */
  list(): JobInfo[] {
    return [...this.#jobs.values()].map(({ info }) => info).toReversed();
  }

  /** Throws `job_not_found`. */
  get(id: string): JobInfo {
    return this.#find(id).info;
  }

  /** Calls `listener` at each change until the answer is called. Throws `job_not_found`. */
  watch(id: string, listener: () => void): () => void {
    const { listeners } = this.#find(id);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  /** Cancels a job, and returns when it has ended; one that is over is taken off the list. Throws `job_not_found`. */
  async remove(id: string): Promise<void> {
    const job = this.#find(id);
    if (job.info.state === "queued") this.#finish(job, new SquashError("cancelled", "cancelled before it began"));
    else if (job.info.state === "running") {
      job.abort.abort();
      await job.ended;
    } else this.#jobs.delete(id);
  }

  /** Cancels all, and returns when they have ended. */
  async close(): Promise<void> {
    this.#closed = true;
    const open = [...this.#in("queued"), ...this.#in("running")];
    await Promise.all(open.map(({ info }) => this.remove(info.id)));
  }

  #in(state: JobInfo["state"]): Job[] {
    return [...this.#jobs.values()].filter(({ info }) => info.state === state);
  }

  #find(id: string): Job {
    const job = this.#jobs.get(id);
    if (job === undefined) throw new SquashError("job_not_found", `Cannot find job "${id.slice(0, 80)}": not found`);
    return job;
  }

  #advance(): void {
    for (const job of this.#in("queued")) {
      if (this.#in("running").length >= this.#options.maxRunning) return;
      void this.#run(job);
    }
  }

  /** Returns why it failed; null where it did not. */
  async #run(job: Job): Promise<{ readonly error: unknown } | null> {
    this.#change(job, { state: "running", started: new Date().toISOString() });
    const progress = (step: string, fraction?: number): void => {
      if (job.info.state !== "running") return;
      const text = step.slice(0, maxStep);
      const lines = text === job.info.step ? job.info.lines : [...job.info.lines, text].slice(-maxLines);
      this.#change(job, { step: text, lines, fraction: fraction ?? null });
    };
    try {
      await job.plan.run({ signal: job.abort.signal, progress });
      this.#change(job, { modules: [...(job.plan.made?.() ?? [job.info.module])] });
      this.#finish(job, null);
      return null;
    } catch (error) {
      this.#finish(job, error);
      return { error };
    }
  }

  #finish(job: Job, error: unknown): void {
    const finished = new Date().toISOString();
    if (error === null) {
      this.#change(job, { state: "done", fraction: 1, finished });
      this.#options.done?.(job.info);
    } else if (job.abort.signal.aborted || (isSquashError(error) && error.code === "cancelled"))
      this.#change(job, { state: "cancelled", finished, error: "it was cancelled", code: "cancelled" });
    else this.#change(job, { state: "failed", finished, ...this.#reasonOf(error) });
    void (job.plan.release?.() ?? Promise.resolve()).finally(job.end);
    for (const old of this.#over().slice(0, -this.#options.maxKept)) this.#jobs.delete(old.info.id);
    if (!this.#closed) this.#advance();
  }

  #over(): Job[] {
    return [...this.#jobs.values()].filter(({ info }) => info.finished !== null);
  }

  #reasonOf(error: unknown): Pick<JobInfo, "error" | "code"> {
    if (isSquashError(error)) return { error: error.message, code: error.code };
    // of the operating system, such as a full disk, in distinction to a bug
    if (error instanceof Error && "errno" in error) return { error: error.message, code: "build_failed" };
    this.#options.report(error);
    return { error: "squashd met a bug; its log says more", code: "internal" };
  }

  #change(job: Job, change: Partial<JobInfo>): void {
    job.info = { ...job.info, ...change };
    for (const listener of job.listeners) listener();
  }
}

function newJob(id: string, plan: JobPlan): Job {
  let end: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => (end = resolve));
  return { info: newInfo(id, plan), plan, abort: new AbortController(), listeners: new Set(), ended, end };
}

function newInfo(id: string, plan: JobPlan): JobInfo {
  return {
    id,
    kind: plan.kind,
    module: plan.module,
    modules: [],
    state: "queued",
    step: "",
    fraction: null,
    lines: [],
    created: new Date().toISOString(),
    started: null,
    finished: null,
    error: null,
    code: null,
  };
}
