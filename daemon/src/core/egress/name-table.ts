import type { NameGrant, Protocol, Verdict } from "./egress-policy.js";
import type { PortSpec } from "./entry.js";
import { hostName } from "./host-name.js";
import { decide, decideAny, grantAt, PortRules } from "./port-rules.js";

export interface NameRule {
  readonly name: string;
  readonly wildcard: boolean;
  readonly port: PortSpec | null;
  readonly verdict: Verdict;
}

class NameLevel extends PortRules {
  readonly wildcard: boolean;

  constructor(wildcard: boolean) {
    super();
    this.wildcard = wildcard;
  }
}

const notAName: Verdict = { allowed: false, rule: "not a name" };

/** What is said about names: the name itself before wildcards, and of these the longest first. */
export class NameTable {
  readonly #exact = new Map<string, NameLevel>();
  readonly #wildcards = new Map<string, NameLevel>();
  readonly #fallback: Verdict;
  /** characters of the longest wildcard */
  #longest = 0;

  /** Of rules on the same, the first counts. `fallback` is for names that none is about. */
  constructor(rules: readonly NameRule[], fallback: Verdict) {
    this.#fallback = fallback;
    for (const { name, wildcard, port, verdict } of rules) {
      const levels = wildcard ? this.#wildcards : this.#exact;
      const level = levels.get(name) ?? new NameLevel(wildcard);
      levels.set(name, level);
      level.add(port, verdict);
      if (wildcard) this.#longest = Math.max(this.#longest, name.length);
    }
  }

  decide(text: string, port: number, protocol: Protocol): Verdict {
    const name = hostName(text);
    return name === null ? notAName : (decide(this.#levelsOf(name), { port, protocol }) ?? this.#fallback);
  }

  /** Whether some port is allowed, and whether a wildcard says so. */
  decideAny(text: string): Verdict & { readonly wildcard: boolean } {
    const name = hostName(text);
    const found = name === null ? null : decideAny(this.#levelsOf(name));
    const { allowed, rule } = name === null ? notAName : (found?.verdict ?? this.#fallback);
    return { allowed, rule, wildcard: allowed && found?.level.wildcard === true };
  }

  grantOf(text: string): NameGrant {
    const name = hostName(text);
    return name === null ? { all: false, ports: [] } : grantAt(this.#levelsOf(name), this.#fallback.allowed);
  }

  #levelsOf(name: string): NameLevel[] {
    const levels: NameLevel[] = [];
    const exact = this.#exact.get(name);
    if (exact !== undefined) levels.push(exact);
    // a name may have many labels, most of which no wildcard is as long as
    const start = Math.max(0, name.length - this.#longest - 1);
    for (let dot = name.indexOf(".", start); dot !== -1; dot = name.indexOf(".", dot + 1)) {
      const level = this.#wildcards.get(name.slice(dot + 1));
      if (level !== undefined) levels.push(level);
    }
    return levels;
  }
}
