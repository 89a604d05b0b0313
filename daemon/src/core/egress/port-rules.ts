import type { NameGrant, Protocol, Verdict } from "./egress-policy.js";
import type { PortSpec } from "./entry.js";

/** What entries say about one name, one suffix or one network: about all of its ports, and about single ones, which counts more. */
export class PortRules {
  #ports: Map<number, Verdict> | null = null;
  #whole: Verdict | null = null;

  get ports(): ReadonlyMap<number, Verdict> {
    return this.#ports ?? noPorts;
  }

  get whole(): Verdict | null {
    return this.#whole;
  }

  /** The first verdict on a port, or on all, stays. */
  add(port: PortSpec | null, verdict: Verdict): void {
    if (port === null) {
      this.#whole ??= verdict;
      return;
    }
    this.#ports ??= new Map();
    if (!this.#ports.has(keyOf(port))) this.#ports.set(keyOf(port), verdict);
  }
}

/** Most have none. */
const noPorts: ReadonlyMap<number, Verdict> = new Map();

/** One number for a port of a protocol, which sorts by port, then TCP before UDP. */
export function keyOf({ port, protocol }: PortSpec): number {
  return port * 2 + (protocol === "udp" ? 1 : 0);
}

/** The most precise verdict on a port. `levels` are those that match, the most precise first. Null where none says anything. */
export function decide(levels: readonly PortRules[], port: PortSpec): Verdict | null {
  const key = keyOf(port);
  for (const { ports, whole } of levels) {
    const verdict = ports.get(key) ?? whole;
    if (verdict !== null) return verdict;
  }
  return null;
}

/** The most precise verdict that allows some port; else the one that denies all the rest of them; else null. */
export function decideAny<Level extends PortRules>(
  levels: readonly Level[],
): { readonly verdict: Verdict; readonly level: Level } | null {
  const denied = new Set<number>();
  for (const level of levels) {
    for (const [key, verdict] of level.ports) {
      if (verdict.allowed && !denied.has(key)) return { verdict, level };
      denied.add(key);
    }
    // there are fewer entries than ports, so that some port is left to it
    if (level.whole !== null) return { verdict: level.whole, level };
  }
  return null;
}

/** What `decide` answers for every port, in short; `open` is for what it has no verdict on. */
export function grantAt(levels: readonly PortRules[], open: boolean): NameGrant {
  const single = new Map<number, boolean>();
  let all: boolean | null = null;
  for (const { ports, whole } of levels) {
    for (const [key, { allowed }] of ports) if (!single.has(key)) single.set(key, allowed);
    all = whole?.allowed ?? null;
    if (all !== null) break;
  }
  const rest = all ?? open;
  const ports = [...single]
    .filter(([key, allowed]) => allowed !== rest && !byProxy.has(key))
    .toSorted(([a], [b]) => a - b)
    .map(([key, allowed]) => ({ port: key >> 1, protocol: protocolOf(key), allowed }));
  return { all: rest, ports };
}

const byProxy = new Set([80, 443].map((port) => keyOf({ port, protocol: "tcp" })));

function protocolOf(key: number): Protocol {
  return key % 2 === 1 ? "udp" : "tcp";
}
