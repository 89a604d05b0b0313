import type { EgressPolicy } from "./egress-policy.js";
import { difference, learnedElements } from "./elements.js";
import type { AddressValue, FirewallElement } from "./firewall.js";

/** seconds beyond the time that the answer is good for: clients connect a moment later, and the kernel is to drop nothing before we do */
const graceS = 30;
const kernelGraceS = 120;
/** seconds that the kernel has to be behind at least, which is more than passes between two calls of `expire` */
const leastGraceS = 60;
/** seconds that an address is good for, at least and at most */
const leastS = 60;
const mostS = 3_600;
/** elements of one sandbox, an address without any counted as one, those of IPv6 as two, as their keys are long; beyond it those that would go first go. Together with those of the entries they can all be exchanged in one change of the firewall. */
const maxElements = 2_048;
/** what is left when some had to go, so that not every answer makes others go */
const lessElements = 1_792;

interface Destination {
  /** names that resolved to it, with when that ends, in ms */
  readonly names: ReadonlyMap<string, number>;
  readonly elements: readonly FirewallElement[];
  /** when the kernel drops them, in ms, or a later time */
  readonly kernelEndMs: number;
}

/** What the kernel has to be told. */
export interface Change {
  readonly remove: readonly FirewallElement[];
  readonly add: readonly FirewallElement[];
  /** Takes it back when the kernel refused it; only while it is the latest. */
  readonly undo: () => void;
}

/** The addresses that names have resolved to for one sandbox, and what they may therefore be used for. Times are milliseconds since 1970. */
export class Learned {
  readonly #client: number;
  readonly #client6: bigint | null;
  readonly #destinations = new Map<AddressValue, Destination>();
  #weight = 0;

  /** The sandbox's addresses; without one of IPv6, no destination may be one. */
  constructor(client: number, client6: bigint | null) {
    this.#client = client;
    this.#client6 = client6;
  }

  get size(): number {
    return this.#destinations.size;
  }

  /** All that is in the kernel now. */
  elements(): FirewallElement[] {
    return [...this.#destinations.values()].flatMap(({ elements }) => elements);
  }

  has(destination: AddressValue): boolean {
    return this.#destinations.has(destination);
  }

  /** Takes an answer in; returns what the kernel has to be told, which is mostly nothing. */
  add(
    policy: EgressPolicy,
    name: string,
    answer: { readonly destinations: readonly AddressValue[]; readonly ttlS: number },
    now: number,
  ): Change {
    const end = now + (Math.min(mostS, Math.max(leastS, answer.ttlS)) + graceS) * 1000;
    const changed = new Map<AddressValue, Destination | null>();
    for (const destination of answer.destinations) {
      const known = this.#destinations.get(destination);
      const names = new Map(known?.names).set(name, Math.max(end, known?.names.get(name) ?? 0));
      const isKnown = known?.names.has(name) === true && !dropsEarly(known, end);
      changed.set(destination, isKnown ? { ...known, names } : this.#renew(policy, destination, names, now));
    }
    return this.#put(changed);
  }

  /** Under another policy names may grant something else, or nothing any more. */
  repolicy(policy: EgressPolicy, now: number): Change {
    const changed = new Map<AddressValue, Destination | null>();
    for (const [destination, known] of this.#destinations) {
      const names = new Map([...known.names].filter(([name]) => policy.lookup(name).allowed));
      changed.set(destination, this.#renew(policy, destination, names, now));
    }
    return this.#put(changed);
  }

  /** Lets go of what has ended, unless `isInUse` says that a connection to it lives, which keeps it for another while. */
  expire(policy: EgressPolicy, isInUse: (destination: AddressValue) => boolean, now: number): Change {
    const changed = new Map<AddressValue, Destination | null>();
    for (const [destination, known] of this.#destinations) {
      const ended = [...known.names].filter(([, end]) => end <= now).map(([name]) => name);
      if (ended.length === 0) continue;
      const inUse = isInUse(destination);
      const names = new Map(known.names);
      for (const name of ended) {
        if (inUse) names.set(name, now + leastS * 1000);
        else names.delete(name);
      }
      changed.set(destination, this.#renew(policy, destination, names, now));
    }
    return this.#put(changed);
  }

  /** Whether anything would end by `now`; cheaper than `expire`. */
  hasEnded(now: number): boolean {
    return [...this.#destinations.values()].some(({ names }) => [...names.values()].some((end) => end <= now));
  }

  /** What a destination is to become with these names; null without any. */
  #renew(
    policy: EgressPolicy,
    destination: AddressValue,
    names: ReadonlyMap<string, number>,
    now: number,
  ): Destination | null {
    if (names.size === 0) return null;
    const known = this.#destinations.get(destination);
    const end = Math.max(...names.values());
    const timeoutS = Math.ceil((end - now) / 1000) + kernelGraceS;
    const grants = [...names.keys()].map((name) => policy.grantOf(name));
    const elements = learnedElements(this.#clientFor(destination), destination, grants, timeoutS);
    const newEndMs = now + timeoutS * 1000;
    const isLonger = known === undefined || dropsEarly(known, end);
    // where only some are new, they may go before those that stay
    return { names, elements, kernelEndMs: isLonger ? newEndMs : Math.min(newEndMs, known.kernelEndMs) };
  }

  #clientFor(destination: AddressValue): AddressValue {
    if (typeof destination === "number") return this.#client;
    if (this.#client6 === null) throw new Error("the sandbox has no IPv6");
    return this.#client6;
  }

  #put(changed: Map<AddressValue, Destination | null>): Change {
    const before = new Map(
      [...changed.keys()].map((destination) => [destination, this.#destinations.get(destination)]),
    );
    for (const [destination, next] of changed) this.#set(destination, next);
    for (const destination of this.#tooMany(changed)) {
      if (!before.has(destination)) before.set(destination, this.#destinations.get(destination));
      this.#set(destination, null);
    }
    const differences = [...before].map(([destination, old]) => changeOf(old, this.#destinations.get(destination)));
    return {
      remove: differences.flatMap(({ remove }) => remove),
      add: differences.flatMap(({ add }) => add),
      undo: () => {
        for (const [destination, old] of before) this.#set(destination, old ?? null);
      },
    };
  }

  #set(destination: AddressValue, next: Destination | null): void {
    this.#weight -= weightOf(this.#destinations.get(destination));
    if (next === null) this.#destinations.delete(destination);
    else this.#destinations.set(destination, next);
    this.#weight += weightOf(next ?? undefined);
  }

  /** Those that go first, to make room; the newest of all only when nothing else is left. */
  #tooMany(newest: ReadonlyMap<AddressValue, unknown>): AddressValue[] {
    if (this.#weight <= maxElements) return [];
    let over = this.#weight - lessElements;
    const byEnd = [...this.#destinations]
      .map(([destination, known]) => ({
        destination,
        weight: weightOf(known),
        isNew: newest.has(destination),
        end: Math.max(...known.names.values()),
      }))
      .toSorted((a, b) => Number(a.isNew) - Number(b.isNew) || a.end - b.end);
    return byEnd
      .filter(({ weight, isNew }) => {
        const goes = over > (isNew ? maxElements - lessElements : 0);
        if (goes) over -= weight;
        return goes;
      })
      .map(({ destination }) => destination);
  }
}

/** Whether the kernel might drop it before `end` is seen to be over. */
function dropsEarly({ kernelEndMs }: Destination, end: number): boolean {
  return kernelEndMs < end + leastGraceS * 1000;
}

function weightOf(destination: Destination | undefined): number {
  if (destination === undefined) return 0;
  const isLarge = destination.elements.some(({ set }) => set.startsWith("learned6"));
  return Math.max(1, destination.elements.length * (isLarge ? 2 : 1));
}

/** A time that has to be longer is another element: the kernel changes none that it has. */
function changeOf(
  old: Destination | undefined,
  next: Destination | undefined,
): { readonly remove: readonly FirewallElement[]; readonly add: readonly FirewallElement[] } {
  const [before, after] = [old?.elements ?? [], next?.elements ?? []];
  const isLonger = old !== undefined && next !== undefined && old.kernelEndMs < next.kernelEndMs;
  return isLonger ? { remove: before, add: after } : difference(before, after);
}
