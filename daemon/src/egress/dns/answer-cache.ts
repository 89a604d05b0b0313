import type { RecordData } from "./record-types.js";

export type ResolveError = "NODATA" | "NXDOMAIN" | "SERVFAIL";

/** What a question was answered with. */
export type Outcome = { readonly records: readonly RecordData[] } | { readonly error: ResolveError };

interface Entry {
  readonly outcome: Outcome;
  readonly expiresAt: number;
  readonly size: number;
}

/** about what an entry takes beside its records */
const entrySize = 200;

/** Answers by question, bounded in number and in bytes; the least recently used go first. */
export class AnswerCache {
  readonly #entries = new Map<string, Entry>();
  readonly #limit: { readonly entries: number; readonly bytes: number };
  readonly #now: () => number;
  #bytes = 0;

  /** `now` returns milliseconds on a clock that never goes back. */
  constructor(limit: { readonly entries: number; readonly bytes: number }, now: () => number) {
    this.#limit = limit;
    this.#now = now;
  }

  /** `ttlS` is what remains, at least 1. */
  get(key: string): { readonly outcome: Outcome; readonly ttlS: number } | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    const remaining = entry.expiresAt - this.#now();
    this.#remove(key, entry);
    if (remaining <= 0) return undefined;
    this.#add(key, entry);
    return { outcome: entry.outcome, ttlS: Math.ceil(remaining / 1000) };
  }

  set(key: string, outcome: Outcome, { ttlS, bytes }: { readonly ttlS: number; readonly bytes: number }): void {
    const earlier = this.#entries.get(key);
    if (earlier !== undefined) this.#remove(key, earlier);
    this.#add(key, { outcome, expiresAt: this.#now() + ttlS * 1000, size: entrySize + key.length + bytes });
    for (const [oldest, entry] of this.#entries) {
      if (this.#entries.size <= this.#limit.entries && this.#bytes <= this.#limit.bytes) break;
      this.#remove(oldest, entry);
    }
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #add(key: string, entry: Entry): void {
    this.#entries.set(key, entry);
    this.#bytes += entry.size;
  }

  #remove(key: string, entry: Entry): void {
    this.#entries.delete(key);
    this.#bytes -= entry.size;
  }
}
