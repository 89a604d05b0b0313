import { covers, parseAddress, readNetwork, widthOf } from "./address.js";
import type { Address, Family, Network } from "./address.js";
import type { Protocol, Verdict } from "./egress-policy.js";
import type { PortSpec } from "./entry.js";
import { decide, decideAny, PortRules } from "./port-rules.js";
import { specialRanges } from "./special-ranges.js";

export interface NetworkRule {
  readonly network: Network;
  readonly port: PortSpec | null;
  readonly verdict: Verdict;
}

/** All networks of one prefix length. */
interface Precision {
  readonly shift: bigint;
  /** by the bits before the prefix's end */
  readonly networks: Map<bigint, PortRules>;
}

const notAnAddress: Verdict = { allowed: false, rule: "not an address" };
const ownAddress: Verdict = { allowed: false, rule: "sandboxes' own addresses" };
const specialAddress: Verdict = { allowed: false, rule: "special address" };
const special: readonly Network[] = Object.values(specialRanges).flat().map(readNetwork);

/** Longest-prefix match over entries and special ranges. Null verdicts are of public addresses that no entry is about. */
export class AddressTable {
  readonly #subnets: readonly Network[];
  readonly #precisions: Readonly<Record<Family, readonly Precision[]>>;

  /** `subnets` are closed whatever the rules say. Of rules on the same, the first counts. */
  constructor(rules: readonly NetworkRule[], subnets: readonly Network[]) {
    this.#subnets = subnets;
    // behind the entries, so that those of the same precision win
    const all = [...rules, ...special.map((network) => ({ network, port: null, verdict: specialAddress }))];
    this.#precisions = { 4: precisionsOf(4, all), 6: precisionsOf(6, all) };
  }

  /** Whether some port of an address is open, or no entry is about it. */
  decideAny(text: string): Verdict | null {
    const address = parseAddress(text);
    if (address === null) return notAnAddress;
    if (this.#isOwn(address)) return ownAddress;
    return decideAny(this.#levelsOf(address))?.verdict ?? null;
  }

  decide(text: string, port: number, protocol: Protocol): Verdict | null {
    const address = parseAddress(text);
    if (address === null) return notAnAddress;
    if (this.#isOwn(address)) return ownAddress;
    return decide(this.#levelsOf(address), { port, protocol });
  }

  #isOwn(address: Address): boolean {
    return this.#subnets.some((subnet) => covers(subnet, address));
  }

  #levelsOf({ family, value }: Address): PortRules[] {
    const levels: PortRules[] = [];
    for (const { shift, networks } of this.#precisions[family]) {
      const rules = networks.get(value >> shift);
      if (rules !== undefined) levels.push(rules);
    }
    return levels;
  }
}

/** The longest prefix first. */
function precisionsOf(family: Family, rules: readonly NetworkRule[]): Precision[] {
  const byPrefix = new Map<number, Precision>();
  for (const { network, port, verdict } of rules) {
    if (network.family !== family) continue;
    const shift = BigInt(widthOf(family) - network.prefix);
    const precision = byPrefix.get(network.prefix) ?? { shift, networks: new Map<bigint, PortRules>() };
    byPrefix.set(network.prefix, precision);
    const found = precision.networks.get(network.value >> shift) ?? new PortRules();
    precision.networks.set(network.value >> shift, found);
    found.add(port, verdict);
  }
  return [...byPrefix].toSorted(([a], [b]) => b - a).map(([, precision]) => precision);
}
