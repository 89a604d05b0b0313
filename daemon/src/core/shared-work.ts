import { SquashError } from "@squash/sdk/errors";
import type { JobContext } from "./jobs.js";

type Progress = Parameters<JobContext["progress"]>;

interface Run<T> {
  readonly abort: AbortController;
  readonly listeners: Set<JobContext["progress"]>;
  readonly result: Promise<T>;
  said: Progress | null;
}

/** Work that several may want at the same time, by keys. It is done once for all of them, for as long as any of them wants it. */
export class SharedWork<T> {
  readonly #runs = new Map<string, Run<T>>();

  /**
   * Does the work, or waits for that of the same key which is under way and is told of its progress. Throws what it throws. Whose signal aborts goes
   * with `cancelled`, at once where others want it still; else the work is called off, and is over then.
   */
  async run(key: string, context: JobContext, work: (context: JobContext) => Promise<T>): Promise<T> {
    for (;;) {
      if (context.signal.aborted) throw cancelled(key);
      const there = this.#runs.get(key);
      if (there?.abort.signal.aborted !== true) return this.#join(key, there ?? this.#begin(key, work), context);
      // nobody wanted it any more: it is begun anew once it has left nothing
      await there.result.catch(() => undefined);
    }
  }

  /** Calls off all that is under way, whoever wants it, and waits until it is over. */
  async close(): Promise<void> {
    for (const { abort, result } of [...this.#runs.values()]) {
      abort.abort();
      await result.catch(() => undefined);
    }
  }

  #begin(key: string, work: (context: JobContext) => Promise<T>): Run<T> {
    const abort = new AbortController();
    const listeners: Run<T>["listeners"] = new Set();
    const progress = (...said: Progress): void => {
      run.said = said;
      for (const listener of listeners) listener(...said);
    };
    const result = Promise.resolve()
      .then(() => work({ signal: abort.signal, progress }))
      .finally(() => this.#runs.delete(key));
    const run: Run<T> = { abort, listeners, result, said: null };
    this.#runs.set(key, run);
    return run;
  }

  async #join(key: string, run: Run<T>, { signal, progress }: JobContext): Promise<T> {
    const { listeners, result, abort } = run;
    // one of its own for each, as two may tell the same of it
    const listener = (...said: Progress): void => progress(...said);
    if (run.said !== null) listener(...run.said);
    listeners.add(listener);
    let leave = (): void => undefined;
    const left = new Promise<never>((_, reject) => (leave = () => reject(cancelled(key))));
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([result, left]);
    } finally {
      signal.removeEventListener("abort", leave);
      listeners.delete(listener);
      if (listeners.size === 0 && this.#runs.get(key) === run) {
        abort.abort();
        await result.catch(() => undefined);
      }
    }
  }
}

function cancelled(key: string): SquashError {
  return new SquashError("cancelled", `Cannot wait for ${key}: cancelled`);
}
