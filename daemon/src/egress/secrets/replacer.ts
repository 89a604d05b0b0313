import { plainView, type View } from "./views.js";

/** Bytes that are looked for. Keeps what the search needs to know of them, so that it is worth keeping itself. */
export class Needle {
  readonly bytes: Buffer;
  /** for each length, that of the longest proper prefix which is also a suffix; made when first needed */
  #borders: Uint32Array | null = null;

  /** @param bytes at least one */
  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  /** The length of the longest proper prefix with which `text` ends, looking at nothing before `from`. */
  openAtEnd(text: Buffer, from: number): number {
    const { bytes } = this;
    const borders = (this.#borders ??= bordersOf(bytes));
    const first = bytes[0] ?? 0;
    let matched = 0;
    let at = Math.max(from, text.length - bytes.length + 1);
    while (at < text.length) {
      if (matched === 0) {
        at = text.indexOf(first, at);
        if (at === -1) return 0;
      }
      const byte = text[at];
      while (matched > 0 && bytes[matched] !== byte) matched = borders[matched - 1] ?? 0;
      if (bytes[matched] === byte) matched += 1;
      at += 1;
    }
    return matched;
  }
}

/** What becomes of bytes that are found. */
export interface Pattern {
  readonly needle: Needle;
  /** comes in their place; null: they stay */
  readonly put: Buffer | null;
  /** called each time they are found, before anything after them is passed on; what it throws ends the replacement */
  readonly found?: () => void;
}

/**
 * Replaces patterns in bytes that come piece by piece, as if they had come at once: from left to right, the longest of those that begin
 * at one place, and never in what was put in. It holds back only what may be the beginning of a pattern.
 */
export class Replacer {
  readonly #patterns: readonly Pattern[];
  readonly #longest: number;
  readonly #viewOf: (raw: Buffer, last: boolean) => View;
  /** where each pattern comes next: -1 for nowhere, less than where the search is for not known */
  readonly #next: number[];
  #held: Buffer = Buffer.alloc(0);

  /** @param viewOf how escapes are read; the needles are what they stand for */
  constructor(patterns: readonly Pattern[], viewOf: (raw: Buffer, last: boolean) => View = plainView) {
    this.#patterns = patterns.toSorted((a, b) => b.needle.bytes.length - a.needle.bytes.length);
    this.#longest = this.#patterns[0]?.needle.bytes.length ?? 0;
    this.#viewOf = viewOf;
    this.#next = new Array<number>(patterns.length);
  }

  /** bytes that wait for those after them */
  get held(): number {
    return this.#held.length;
  }

  /** What can be passed on. Throws what `found` of a pattern throws. */
  push(chunk: Buffer): Buffer[] {
    return this.#run(this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]), false);
  }

  /** The rest. The replacer may be used for other bytes then. */
  end(): Buffer[] {
    return this.#held.length === 0 ? [] : this.#run(this.#held, true);
  }

  #run(raw: Buffer, last: boolean): Buffer[] {
    const view = this.#viewOf(raw, last);
    const { bytes } = view;
    const output: Buffer[] = [];
    let from = 0; // in the view
    let passed = 0; // in what came
    let open = -1;
    this.#next.fill(-2);
    const pass = (to: number): void => {
      if (to > passed) output.push(raw.subarray(passed, to));
      passed = to;
    };
    for (;;) {
      const found = this.#find(bytes, from);
      const at = found === null ? bytes.length : this.#at(found);
      // a pattern that begins where another one may still begin, or after it, is not certain
      if (!last && at > bytes.length - this.#longest) {
        if (open < from) open = this.#openFrom(bytes, from);
        if (open <= at) {
          pass(view.rawAt(open));
          break;
        }
      }
      if (found === null) {
        pass(view.rawAt(bytes.length));
        break;
      }
      const { put, needle, found: tell } = found;
      from = at + needle.bytes.length;
      tell?.();
      if (put === null) continue;
      pass(view.rawAt(at));
      if (put.length > 0) output.push(put);
      passed = view.rawAt(from);
    }
    // a copy, so that a few bytes do not keep a whole chunk
    this.#held = Buffer.from(raw.subarray(passed));
    return output;
  }

  /** The pattern that comes first, the longest of several. */
  #find(bytes: Buffer, from: number): Pattern | null {
    let first: Pattern | null = null;
    let firstAt = Infinity;
    for (const [index, pattern] of this.#patterns.entries()) {
      let at = this.#next[index] ?? -1;
      if (at !== -1 && at < from) {
        at = bytes.indexOf(pattern.needle.bytes, from);
        this.#next[index] = at;
      }
      if (at !== -1 && at < firstAt) {
        first = pattern;
        firstAt = at;
      }
    }
    return first;
  }

  #at(pattern: Pattern): number {
    return this.#next[this.#patterns.indexOf(pattern)] ?? -1;
  }

  /** Where, at the earliest, a pattern may begin that ends in what is still to come. */
  #openFrom(bytes: Buffer, from: number): number {
    let longest = 0;
    for (const { needle } of this.#patterns) longest = Math.max(longest, needle.openAtEnd(bytes, from));
    return bytes.length - longest;
  }
}

/** All at once. */
export function replaceAll(bytes: Buffer, patterns: readonly Pattern[], viewOf?: (raw: Buffer) => View): Buffer {
  const replacer = new Replacer(patterns, viewOf);
  return Buffer.concat([...replacer.push(bytes), ...replacer.end()]);
}

function bordersOf(bytes: Buffer): Uint32Array {
  const borders = new Uint32Array(bytes.length);
  let length = 0;
  for (let at = 1; at < bytes.length; at += 1) {
    while (length > 0 && bytes[at] !== bytes[length]) length = borders[length - 1] ?? 0;
    if (bytes[at] === bytes[length]) length += 1;
    borders[at] = length;
  }
  return borders;
}
