import { SquashError } from "@squash/sdk/errors";
import type { FirewallElement } from "../firewall.js";

/** The sets of the firewall as the kernel keeps them: it refuses what the kernel refuses, and drops what has had its time. */
export class KernelSets {
  readonly #elements = new Map<string, { readonly element: FirewallElement; readonly endMs: number }>();
  #now = 0;

  /** Lets the time go on, up to then, in ms. */
  set now(now: number) {
    this.#now = now;
    for (const [key, { endMs }] of this.#elements) if (endMs <= now) this.#elements.delete(key);
  }

  /** All or nothing. */
  update(remove: readonly FirewallElement[], add: readonly FirewallElement[]): void {
    const before = new Map(this.#elements);
    try {
      for (const element of remove) this.#remove(element);
      for (const element of add) this.#add(element);
    } catch (error) {
      this.#elements.clear();
      for (const [key, kept] of before) this.#elements.set(key, kept);
      throw error;
    }
  }

  /** `set key` with what is held, sorted. */
  state(): string[] {
    return describeElements([...this.#elements.values()].map(({ element }) => element));
  }

  /** As after somebody has removed the table, and it was loaded again. */
  clear(): void {
    this.#elements.clear();
  }

  #remove({ set, key }: FirewallElement): void {
    if (!this.#elements.delete(`${set} ${key}`)) throw refusal("ENOENT");
  }

  /** One that is there already stays as it is, its time included. */
  #add(element: FirewallElement): void {
    const place = `${element.set} ${element.key}`;
    const known = this.#elements.get(place)?.element;
    if (known === undefined) {
      const endMs = element.timeoutS === undefined ? Infinity : this.#now + element.timeoutS * 1000;
      this.#elements.set(place, { element, endMs });
    } else if (known.mark !== element.mark || known.rate !== element.rate) throw refusal("EBUSY");
  }
}

export function describeElements(elements: readonly FirewallElement[]): string[] {
  return elements
    .map(({ set, key, mark, rate }) => [set, key, mark ?? rate ?? ""].join(" ").trimEnd())
    .toSorted((a, b) => (a < b ? -1 : 1));
}

export function refusal(errno: string): SquashError {
  return new SquashError("kernel", `Cannot change the firewall's sets: ${errno}`, { details: { errno } });
}
