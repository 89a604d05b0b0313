/**
 * What a sandbox may put into a name below a wildcard; docs/egress.md repeats these numbers. They come from host names of large
 * providers and from random bytes in the usual encodings, both in tunnel-guard.test.ts. A guard against tunnels can only make them
 * slow: words carry data as well as letters do.
 */
export const tunnelLimits = {
  /** characters of the whole name */
  name: 120,
  /** characters of one label: the longest real ones are names of storage buckets with an account and a region */
  label: 48,
  /** a label's piece between hyphens of at least so many characters ... */
  pieceFrom: 20,
  /** ... may have so many bits of entropy in each character: hexadecimal digits stay below, base32 and base64 do not */
  pieceBits: 3.9,
  /** names not asked for lately, below one wildcard, in a minute */
  newNames: 60,
  /** names remembered as not new, below one wildcard */
  rememberedNames: 512,
} as const;

const windowMs = 60_000;
const maxWildcards = 1000;

/** Watches over the names of one sandbox that wildcards allow. */
export class TunnelGuard {
  readonly #wildcards = new Map<string, Wildcard>();
  readonly #now: () => number;

  /** `now` returns milliseconds on a clock that never goes back. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Returns why a name may not be asked for, or null. `rule` is the wildcard's entry, as in `Verdict.rule`; `name` is in lower case. */
  refusal(name: string, rule: string): string | null {
    const shape = shapeRefusal(name, rule);
    if (shape !== null) return shape;
    return this.#wildcard(rule).admit(name, this.#now()) ? null : "tunnel guard: too many new names";
  }

  /** Those of earlier policies go, in the end. */
  #wildcard(rule: string): Wildcard {
    const known = this.#wildcards.get(rule) ?? new Wildcard();
    this.#wildcards.delete(rule);
    this.#wildcards.set(rule, known);
    if (this.#wildcards.size > maxWildcards) deleteFirst(this.#wildcards);
    return known;
  }
}

/** The names asked for below one wildcard. */
class Wildcard {
  /** the least recently asked first */
  readonly #known = new Set<string>();
  /** when the last new names came, the oldest first */
  readonly #times: number[] = [];

  admit(name: string, now: number): boolean {
    if (!this.#known.delete(name)) {
      if (this.#times.length >= tunnelLimits.newNames) {
        if (now - (this.#times[0] ?? now) < windowMs) return false;
        this.#times.shift();
      }
      this.#times.push(now);
    }
    this.#known.add(name);
    if (this.#known.size > tunnelLimits.rememberedNames) deleteFirst(this.#known);
    return true;
  }
}

function shapeRefusal(name: string, rule: string): string | null {
  if (name.length > tunnelLimits.name) return "tunnel guard: long name";
  for (const label of chosenPart(name, rule).split(".")) {
    if (label.length > tunnelLimits.label) return "tunnel guard: long label";
    for (const piece of label.split("-"))
      if (piece.length >= tunnelLimits.pieceFrom && entropy(piece) > tunnelLimits.pieceBits)
        return "tunnel guard: encoded label";
  }
  return null;
}

/** What stands in place of the asterisk; all of the name where the rule does not tell. */
function chosenPart(name: string, rule: string): string {
  const suffix = /\*(\.[a-z0-9._-]+)/i.exec(rule)?.[1]?.toLowerCase();
  return suffix !== undefined && name.endsWith(suffix) ? name.slice(0, -suffix.length) : name;
}

/** Shannon's entropy in bits for each character. */
function entropy(text: string): number {
  const counts = new Map<string, number>();
  for (const character of text) counts.set(character, (counts.get(character) ?? 0) + 1);
  let bits = 0;
  for (const count of counts.values()) bits -= (count / text.length) * Math.log2(count / text.length);
  return bits;
}

function deleteFirst<K>(keyed: { keys(): Iterator<K>; delete(key: K): boolean }): void {
  const first = keyed.keys().next();
  if (first.done !== true) keyed.delete(first.value);
}
