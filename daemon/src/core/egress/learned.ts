import type { EgressPolicy } from "./egress-policy.js";
import { difference, learnedElements } from "./elements.js";
import type { FirewallElement } from "./firewall.js";

/** seconds beyond the time that the answer is good for: clients connect a moment later, and the kernel is to drop nothing before we do */
const graceS = 30;
const kernelGraceS = 120;
/** seconds that an address is good for, at least and at most */
const leastS = 60;
const mostS = 3_600;
/** addresses of one sandbox; beyond it the one that would go first goes */
const maxDestinations = 4_096;

interface Destination {
  /** names that resolved to it, with when that ends, in ms */
  readonly names: Map<string, number>;
  elements: FirewallElement[];
  /** when the kernel drops them, in ms */
  kernelEndMs: number;
}

export interface Change {
  readonly remove: FirewallElement[];
  readonly add: FirewallElement[];
}

const nothing: Change = { remove: [], add: [] };

/** The addresses that names have resolved to for one sandbox, and what they may therefore be used for. Times are milliseconds since 1970. */
export class Learned {
  readonly #client: number;
  readonly #destinations = new Map<number, Destination>();

  constructor(client: number) {
    this.#client = client;
  }

  get size(): number {
    return this.#destinations.size;
  }

  /** All that is in the kernel now. */
  elements(): FirewallElement[] {
    return [...this.#destinations.values()].flatMap(({ elements }) => elements);
  }

  has(destination: number): boolean {
    return this.#destinations.has(destination);
  }

  /** Takes an answer in; returns what the kernel has to be told, which is mostly nothing. */
  add(
    policy: EgressPolicy,
    name: string,
    answer: { readonly destinations: readonly number[]; readonly ttlS: number },
    now: number,
  ): Change {
    const end = now + (Math.min(mostS, Math.max(leastS, answer.ttlS)) + graceS) * 1000;
    const changes = answer.destinations.map((destination) => {
      const known = this.#destinations.get(destination) ?? {
        names: new Map<string, number>(),
        elements: [],
        kernelEndMs: 0,
      };
      this.#destinations.set(destination, known);
      const isNew = !known.names.has(name);
      known.names.set(name, Math.max(end, known.names.get(name) ?? 0));
      return isNew || known.kernelEndMs < end ? this.#renew(policy, destination, known, now) : nothing;
    });
    return join([...changes, ...this.#evict()]);
  }

  /** Under another policy names may grant something else, or nothing any more. */
  repolicy(policy: EgressPolicy, now: number): Change {
    return join(
      [...this.#destinations].map(([destination, known]) => {
        for (const name of known.names.keys()) if (!policy.lookup(name).allowed) known.names.delete(name);
        return this.#renew(policy, destination, known, now);
      }),
    );
  }

  /** Lets go of what has ended, unless `isInUse` says that a connection to it lives, which keeps it for another while. */
  expire(policy: EgressPolicy, isInUse: (destination: number) => boolean, now: number): Change {
    return join(
      [...this.#destinations].map(([destination, known]) => {
        const ended = [...known.names].filter(([, end]) => end <= now).map(([name]) => name);
        if (ended.length === 0) return nothing;
        const inUse = isInUse(destination);
        for (const name of ended) {
          if (inUse) known.names.set(name, now + leastS * 1000);
          else known.names.delete(name);
        }
        return this.#renew(policy, destination, known, now);
      }),
    );
  }

  /** Whether anything would end by `now`; cheaper than `expire`. */
  hasEnded(now: number): boolean {
    return [...this.#destinations.values()].some(({ names }) => [...names.values()].some((end) => end <= now));
  }

  #renew(policy: EgressPolicy, destination: number, known: Destination, now: number): Change {
    const end = Math.max(0, ...known.names.values());
    const timeoutS = Math.ceil((end - now) / 1000) + kernelGraceS;
    const grants = [...known.names.keys()].map((name) => policy.grantOf(name));
    const wanted = known.names.size === 0 ? [] : learnedElements(this.#client, destination, grants, timeoutS);
    // a time that has to be longer is another element: the kernel changes none that it has
    const change =
      known.kernelEndMs < end ? { remove: known.elements, add: wanted } : difference(known.elements, wanted);
    if (known.kernelEndMs < end) known.kernelEndMs = now + timeoutS * 1000;
    known.elements = wanted;
    if (known.names.size === 0) this.#destinations.delete(destination);
    return change;
  }

  #evict(): Change[] {
    const over = this.#destinations.size - maxDestinations;
    if (over <= 0) return [];
    const byEnd = [...this.#destinations].map(([destination, { names }]) => ({
      destination,
      end: Math.max(...names.values()),
    }));
    return byEnd
      .toSorted((a, b) => a.end - b.end)
      .slice(0, over + maxDestinations / 8)
      .map(({ destination }) => {
        const elements = this.#destinations.get(destination)?.elements ?? [];
        this.#destinations.delete(destination);
        return { remove: elements, add: [] };
      });
  }
}

function join(changes: readonly Change[]): Change {
  return { remove: changes.flatMap(({ remove }) => remove), add: changes.flatMap(({ add }) => add) };
}
