import { readFile, mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { QueueEntryInfo } from "@squash/sdk/protocol";
import { errorText } from "../core/error-text.js";
import { pause } from "../core/pause.js";
import { writeAtomically } from "../store/atomic-file.js";

/**
 * What is to be done in the bucket. What is asked for a subject is done in the order in which it was asked for; of different ones, what came first is
 * begun first, a few at a time, but no two of one sandbox, whose snapshots have most of their bytes in common.
 */
export type PushTask =
  | { readonly kind: "module"; readonly name: string }
  | { readonly kind: "snapshot"; readonly id: string; readonly label: string }
  | { readonly kind: "remove-snapshot"; readonly id: string; readonly label: string };

interface Entry {
  readonly seq: number;
  readonly task: PushTask;
  readonly added: string;
  attempts: number;
  /** of the next try, in ms; 0 for at once */
  nextMs: number;
  error: string | null;
  code: string | null;
  /** `again`: it was asked for anew meanwhile, when what it sends may have been read already */
  state: "waiting" | "running" | "again";
}

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export interface PushQueueOptions {
  /** where it is kept */
  readonly path: string;
  /** does a task; what it throws is tried again, but for `settled` failures */
  readonly work: (task: PushTask, signal: AbortSignal) => Promise<void>;
  /** told of what cannot be done at all, and of a queue that is full */
  readonly report: (text: string) => void;
  /** entries at most; what comes then is found by the next comparison with the bucket */
  readonly limit?: number;
  readonly retry?: { readonly firstMs: number; readonly mostMs: number };
  /** tasks at a time; @default 3 */
  readonly parallel?: number;
}

const settled = ["sandbox_not_found", "snapshot_not_found", "module_not_found", "module_invalid", "snapshot_damaged"];
/** somebody must look, but nothing is gained by trying again */
const refused = ["module_exists", "snapshot_exists", "s3_off"];

/** What is still to be sent to the bucket. It is kept on the disk before anybody is answered, and what fails is tried again, ever more rarely. */
export class PushQueue {
  readonly #options: Required<PushQueueOptions>;
  readonly #entries: Entry[] = [];
  readonly #waiting = new Map<number, Waiting[]>();
  readonly #closing = new AbortController();
  #nextSeq = 1;
  #saving: Promise<void> = Promise.resolve();
  #running: Promise<void> | null = null;
  #wake = new AbortController();
  #done = { sent: 0, failed: 0 };

  private constructor(options: PushQueueOptions) {
    this.#options = { limit: 4_096, retry: { firstMs: 1_000, mostMs: 300_000 }, parallel: 3, ...options };
  }

  /** Reads what an earlier squashd has left. */
  static async open(options: PushQueueOptions): Promise<PushQueue> {
    const queue = new PushQueue(options);
    for (const entry of parse(await readFile(options.path, "utf8").catch(() => ""))) {
      queue.#entries.push(entry);
      queue.#nextSeq = Math.max(queue.#nextSeq, entry.seq + 1);
    }
    return queue;
  }

  /** Begins to work. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Adds a task durably; one that is the last for its subject already is not added again. False where there is no room. */
  async add(task: PushTask): Promise<boolean> {
    const entry = this.#enter(task);
    if (entry === null) return false;
    await this.#save();
    this.#wake.abort();
    return true;
  }

  /** Adds a task and waits until it is done. Throws what it threw at its first try, though it is tried again afterwards. */
  async addAndWait(task: PushTask, signal: AbortSignal): Promise<void> {
    const entry = this.#enter(task);
    if (entry === null) throw new SquashError("job_limit", "Cannot send it to the bucket: too much waits already");
    const done = new Promise<void>((resolve, reject) => {
      this.#waiting.set(entry.seq, [...(this.#waiting.get(entry.seq) ?? []), { resolve, reject }]);
      const end = (): void => reject(new SquashError("cancelled", "Cannot wait for the bucket: the caller went away"));
      if (signal.aborted) end();
      else signal.addEventListener("abort", end, { once: true });
    });
    done.catch(() => undefined); // it may come before anybody listens
    await this.#save();
    this.#wake.abort();
    await done;
  }

  list(): QueueEntryInfo[] {
    return this.#entries.map(({ task, added, attempts, nextMs, error, code }) => ({
      ...shown(task),
      added,
      attempts,
      next: nextMs === 0 ? null : new Date(nextMs).toISOString(),
      error,
      code,
    }));
  }

  get length(): number {
    return this.#entries.length;
  }

  /** How often something was done, and how often a try failed, since the start. */
  get counts(): { readonly sent: number; readonly failed: number } {
    return this.#done;
  }

  /** Stops; what is left is done by the next squashd. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#wake.abort();
    await this.#running;
    await this.#saving;
    for (const seq of [...this.#waiting.keys()])
      this.#settle(seq, new SquashError("shutting_down", "Cannot wait for the bucket: squashd is shutting down"));
  }

  /** The entry for a task; null where there is no room. */
  #enter(task: PushTask): Entry | null {
    const last = this.#entries.findLast((entry) => subjectOf(entry.task) === subjectOf(task));
    if (last?.task.kind === task.kind) {
      last.nextMs = 0;
      if (last.state === "running") last.state = "again";
      return last;
    }
    if (this.#entries.length >= this.#options.limit) {
      this.#options.report(`the queue for the bucket is full; ${keyOf(task)} is sent by the next comparison with it`);
      return null;
    }
    const added = new Date().toISOString();
    const entry = newEntry({ seq: this.#nextSeq++, task, added, attempts: 0 });
    this.#entries.push(entry);
    return entry;
  }

  /** What can be tried, or is: of what is for one subject, only the first. */
  #heads(): Entry[] {
    const seen = new Set<string>();
    return this.#entries.filter(({ task }) => !seen.has(subjectOf(task)) && seen.add(subjectOf(task)));
  }

  async #run(): Promise<void> {
    const running = new Set<Promise<void>>();
    while (!this.#closing.signal.aborted) {
      this.#wake = new AbortController();
      const now = Date.now();
      for (const entry of this.#due(now, this.#options.parallel - running.size)) {
        const trying: Promise<void> = this.#try(entry).finally(() => {
          running.delete(trying);
          this.#wake.abort();
        });
        running.add(trying);
      }
      const later = this.#heads().filter(({ state, nextMs }) => state === "waiting" && nextMs > now);
      const next = later.reduce((least, { nextMs }) => Math.min(least, nextMs), now + 60_000);
      await pause(Math.max(10, next - now), this.#wake.signal);
    }
    await Promise.all(running);
  }

  /** Up to so many that can be begun now. */
  #due(now: number, atMost: number): Entry[] {
    const heads = this.#heads();
    const busy = new Set(heads.filter(({ state }) => state !== "waiting").map(({ task }) => laneOf(task)));
    return heads
      .filter(({ state, nextMs }) => state === "waiting" && nextMs <= now)
      .filter(({ task }) => !busy.has(laneOf(task)) && busy.add(laneOf(task)))
      .slice(0, Math.max(0, atMost));
  }

  async #try(entry: Entry): Promise<void> {
    const { seq } = entry;
    entry.state = "running";
    try {
      await this.#options.work(entry.task, this.#closing.signal);
      this.#done = { ...this.#done, sent: this.#done.sent + 1 };
      await this.#leave(entry);
      this.#settle(seq, null);
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      this.#done = { ...this.#done, failed: this.#done.failed + 1 };
      const code = isSquashError(error) ? error.code : "internal";
      if (settled.includes(code) || refused.includes(code)) await this.#leave(entry);
      else this.#defer(entry, error, code);
      if (refused.includes(code) || code === "snapshot_damaged") this.#options.report(errorText(error));
      this.#settle(seq, error);
    }
  }

  #defer(entry: Entry, error: unknown, code: string): void {
    const { firstMs, mostMs } = this.#options.retry;
    entry.state = "waiting";
    entry.attempts++;
    entry.error = errorText(error);
    entry.code = code;
    entry.nextMs =
      Date.now() + Math.min(mostMs, firstMs * 2 ** Math.min(entry.attempts - 1, 20)) * (0.75 + Math.random() / 2);
  }

  /** It is over, unless it was asked for anew meanwhile. */
  async #leave(entry: Entry): Promise<void> {
    if (entry.state === "again") {
      entry.state = "waiting";
      return;
    }
    this.#entries.splice(this.#entries.indexOf(entry), 1);
    await this.#save();
  }

  #settle(seq: number, error: unknown): void {
    const waiting = this.#waiting.get(seq) ?? [];
    this.#waiting.delete(seq);
    for (const { resolve, reject } of waiting) {
      if (error === null) resolve();
      else reject(error);
    }
  }

  /** What a full disk does not take is in memory still, and found again by the next comparison. */
  #save(): Promise<void> {
    const { path, report } = this.#options;
    this.#saving = this.#saving.then(async () => {
      const entries = this.#entries.map(({ seq, task, added, attempts }) => ({ seq, task, added, attempts }));
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await writeAtomically(path, `${JSON.stringify({ version: 1, entries })}\n`, { durable: true });
    });
    this.#saving = this.#saving.catch((error: unknown) =>
      report(`the queue for the bucket cannot be written: ${errorText(error)}`),
    );
    return this.#saving;
  }
}

function keyOf(task: PushTask): string {
  return task.kind === "module" ? `module ${task.name}` : `${task.kind} ${task.id}@${task.label}`;
}

function newEntry(kept: Pick<Entry, "seq" | "task" | "added" | "attempts">): Entry {
  return { ...kept, nextMs: 0, error: null, code: null, state: "waiting" };
}

function subjectOf(task: PushTask): string {
  return task.kind === "module" ? `module ${task.name}` : `snapshot ${task.id}@${task.label}`;
}

/** Of two tasks in one lane one waits for the other. */
function laneOf(task: PushTask): string {
  return task.kind === "module" ? `module ${task.name}` : `sandbox ${task.id}`;
}

function shown(task: PushTask): Pick<QueueEntryInfo, "kind" | "subject"> {
  return { kind: task.kind, subject: task.kind === "module" ? task.name : `${task.id}@${task.label}` };
}

/** What is no queue counts as an empty one: the next comparison with the bucket finds what it held. */
function parse(text: string): Entry[] {
  try {
    const { version, entries } = JSON.parse(text) as { version?: unknown; entries?: unknown };
    if (version !== 1 || !Array.isArray(entries)) return [];
    return (entries as Entry[]).filter(isEntry).map(newEntry);
  } catch {
    return [];
  }
}

function isEntry(value: Partial<Entry> | null): boolean {
  const { seq, task, added, attempts } = value ?? {};
  const { kind, ...rest } = (task ?? {}) as Partial<Record<string, unknown>>;
  const isTask =
    (kind === "module" && typeof rest["name"] === "string") ||
    ((kind === "snapshot" || kind === "remove-snapshot") &&
      typeof rest["id"] === "string" &&
      typeof rest["label"] === "string");
  return isTask && Number.isInteger(seq) && typeof added === "string" && Number.isInteger(attempts);
}
