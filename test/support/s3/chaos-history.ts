import { createHash } from "node:crypto";

/** What is known of sandboxes of one run, in the order in which it came to be known; that of one sandbox is never mixed up. */
export type ChaosEvent =
  /** it is going to be written, which may come about or not, now or later */
  | { readonly kind: "write"; readonly id: string; readonly seq: number; readonly digest: string }
  /** it was made with the files of another one, which had these lines before it was asked for */
  | { readonly kind: "forked"; readonly id: string; readonly from: string; readonly lines: readonly string[] }
  /** it was acknowledged that what had these lines, before it was asked for, is saved */
  | { readonly kind: "saved"; readonly id: string; readonly how: string; readonly lines: readonly string[] }
  | Sight;

/** What a sandbox has been seen to hold. */
export interface Sight {
  readonly kind: "seen";
  readonly id: string;
  /** another number where it may have been made anew since */
  readonly incarnation: number;
  /** "sequence number, space, digest of the content" for each write, in the order in which they were done */
  readonly lines: readonly string[];
  /** digest of the content that was written last; absent where nobody looked */
  readonly content?: string;
}

/** What must not be, in words; nothing is well. */
export function violations(events: readonly ChaosEvent[]): string[] {
  const history = new History();
  for (const event of events) history.add(event);
  return history.found;
}

class History {
  readonly found: string[] = [];
  readonly #written = new Map<string, { readonly id: string; readonly digest: string }>();
  readonly #from = new Map<string, string>();
  /** what the last that was saved holds at least */
  readonly #saved = new Map<string, { readonly how: string; readonly lines: readonly string[] }>();
  readonly #last = new Map<string, Sight>();
  /** all that stood up to and with a write, which was done once only */
  readonly #states = new Map<string, string>();

  add(event: ChaosEvent): void {
    const { id } = event;
    switch (event.kind) {
      case "write":
        this.#written.set(String(event.seq), { id, digest: event.digest });
        break;
      case "forked":
        this.#from.set(id, event.from);
        this.#begin(id, event.lines);
        break;
      case "saved": {
        const before = this.#saved.get(id)?.lines ?? [];
        if (event.lines.length >= before.length) this.#saved.set(id, event);
        break;
      }
      case "seen":
        this.#look(event);
        break;
    }
  }

  /** A new one has all that it was made with, for as long as it is the same. */
  #begin(id: string, lines: readonly string[]): void {
    this.#last.set(id, { kind: "seen", id, incarnation: 0, lines });
  }

  #look(sight: Sight): void {
    const { id, incarnation, lines, content } = sight;
    const saved = this.#saved.get(id);
    if (saved !== undefined && !beginsWith(lines, saved.lines))
      this.#report(sight, `lacks what ${saved.how} saved: ${missing(lines, saved.lines)}`);
    const last = this.#last.get(id);
    if (last?.incarnation === incarnation && !beginsWith(lines, last.lines))
      this.#report(sight, `lacks what it had: ${missing(lines, last.lines)}`);
    this.#last.set(id, sight);
    this.#checkLines(sight);
    const digest = lines.at(-1)?.split(" ")[1];
    if (content !== undefined && digest !== undefined && content !== digest)
      this.#report(sight, `has another content than that of its last write, ${lines.at(-1)}`);
  }

  #checkLines(sight: Sight): void {
    const { id, lines } = sight;
    const upTo = createHash("sha256");
    const seen = new Set<string>();
    for (const line of lines) {
      const [seq = "", digest] = line.split(" ");
      const written = this.#written.get(seq);
      if (written?.digest !== digest || written === undefined || !this.#isOf(id, written.id))
        this.#report(sight, `has what was never written in it: ${line}`);
      if (seen.has(seq)) this.#report(sight, `has a write twice: ${line}`);
      seen.add(seq);
      const state = upTo.update(`${line}\n`).copy().digest("hex");
      if ((this.#states.get(seq) ?? state) !== state) this.#report(sight, `has a state that never was, at ${line}`);
      this.#states.set(seq, state);
    }
  }

  #isOf(id: string, owner: string): boolean {
    for (let at: string | undefined = id; at !== undefined; at = this.#from.get(at)) if (at === owner) return true;
    return false;
  }

  #report({ id, incarnation }: Sight, what: string): void {
    this.found.push(`sandbox "${id}" (${incarnation}) ${what}`);
  }
}

function beginsWith(lines: readonly string[], first: readonly string[]): boolean {
  return first.every((line, n) => lines[n] === line);
}

function missing(lines: readonly string[], wanted: readonly string[]): string {
  const at = wanted.findIndex((line, n) => lines[n] !== line);
  return `${wanted.length - at} of ${wanted.length} writes, from ${wanted[at]} on, where it has ${lines[at] ?? "none"}`;
}

/** A moment at which what ran was looked at: sandbox and machine of each live program. */
export type Running = readonly { readonly id: string; readonly machine: string }[];

/** Sandboxes that ran on more than one machine at that moment. */
export function doubles(running: Running): string[] {
  const at = new Map<string, string>();
  const found = new Set<string>();
  for (const { id, machine } of running) {
    if ((at.get(id) ?? machine) !== machine) found.add(id);
    at.set(id, machine);
  }
  return [...found];
}

/** A write of a manifest that the store has done. */
export interface ManifestWrite {
  readonly id: string;
  /** the etag that it replaced, "" where there was to be none; null where it was not conditional */
  readonly replaces: string | null;
}

/** A manifest as it was read, in the order of reading. */
export interface ManifestReading {
  readonly id: string;
  readonly epoch: number;
  /** machine and session that have it; null where nobody does */
  readonly holder: string | null;
}

/** How manifests changed other than one after the other, each by whoever knew the one before. */
export function forks(writes: readonly ManifestWrite[], readings: readonly ManifestReading[]): string[] {
  const found: string[] = [];
  const replaced = new Set<string>();
  for (const { id, replaces } of writes) {
    if (replaces === null) found.push(`the manifest of "${id}" was written without a condition`);
    const key = `${id} ${replaces}`;
    if (replaced.has(key)) found.push(`the manifest of "${id}" was replaced twice, as that of ${replaces || "none"}`);
    replaced.add(key);
  }
  const newest = new Map<string, number>();
  const holders = new Map<string, string>();
  for (const { id, epoch, holder } of readings) {
    const before = newest.get(id) ?? 0;
    if (epoch < before) found.push(`the manifest of "${id}" went back from epoch ${before} to ${epoch}`);
    newest.set(id, Math.max(before, epoch));
    if (holder === null) continue;
    const key = `${id} ${epoch}`;
    if ((holders.get(key) ?? holder) !== holder) found.push(`epoch ${epoch} of "${id}" has had two holders`);
    holders.set(key, holder);
  }
  return found;
}
