import type { EgressPolicy, NameGrant, Protocol } from "./egress-policy.js";
import { addressNumber, linkName, marks, modes, type FirewallElement, type SetName } from "./firewall.js";

const protocolNumber = { tcp: 6, udp: 17 } as const satisfies Record<Protocol, number>;

/** What the firewall has to know of a sandbox. */
export interface FirewallClient {
  readonly index: number;
  readonly address: number;
  readonly policy: EgressPolicy;
  /** new connections a second; null for no limit of its own */
  readonly connectionsPerS: number | null;
}

/** Everything by which the static ruleset knows a sandbox and its policy, apart from what names resolve to. */
export function clientElements(client: FirewallClient): FirewallElement[] {
  const { index, address, policy, connectionsPerS } = client;
  const own = word(address);
  return [
    { set: "links", key: nameKey(linkName(index)) + own },
    { set: "refused", key: own },
    ...(policy.silent
      ? []
      : [{ set: "asking", key: own } as const, { set: "mode", key: own, mark: modeOf(policy) } as const]),
    ...(policy.enforcesNames ? [{ set: "proxied", key: own } as const] : []),
    ...(connectionsPerS === null ? [] : [{ set: "rates", key: own, rate: connectionsPerS } as const]),
    ...policy.addressRules
      .filter(({ family }) => family === 4)
      .map(({ network, prefix, port, protocol, allowed }): FirewallElement => {
        const mark = allowed ? marks.permitted : marks.refused;
        const target = own + word(addressNumber(network));
        if (port === null || protocol === null) return { set: `net${prefix}`, key: target, mark };
        return { set: `port${prefix}`, key: target + portKey(protocol, port), mark };
      }),
  ];
}

/** What an address may be used for, since names have resolved to it. Where names disagree, deny beats allow. */
export function learnedElements(
  client: number,
  destination: number,
  grants: readonly NameGrant[],
  timeoutS: number,
): FirewallElement[] {
  const target = word(client) + word(destination);
  const ports = new Map<string, boolean>();
  for (const { port, protocol, allowed } of grants.flatMap((grant) => grant.ports)) {
    const key = target + portKey(protocol, port);
    ports.set(key, allowed && (ports.get(key) ?? true));
  }
  const all = grants.some((grant) => grant.all);
  return [
    ...(all ? [{ set: "learned", key: target, mark: marks.permitted, timeoutS } as const] : []),
    ...[...ports].map(
      ([key, allowed]) =>
        ({ set: "learned_port", key, mark: allowed ? marks.permitted : marks.refused, timeoutS }) as const,
    ),
  ];
}

/** What has to be removed and added to get from one list to another. Removed is also what stays but holds something else. */
export function difference(
  before: readonly FirewallElement[],
  after: readonly FirewallElement[],
): { remove: FirewallElement[]; add: FirewallElement[] } {
  const old = new Map(before.map((element) => [identity(element), element]));
  const add = after.filter((element) => !isSame(old.get(identity(element)), element));
  const kept = new Set(after.filter((element) => isSame(old.get(identity(element)), element)).map(identity));
  return { remove: before.filter((element) => !kept.has(identity(element))), add };
}

function identity({ set, key }: { readonly set: SetName; readonly key: string }): string {
  return `${set} ${key}`;
}

function isSame(a: FirewallElement | undefined, b: FirewallElement): boolean {
  return a !== undefined && a.mark === b.mark && a.rate === b.rate;
}

function modeOf(policy: EgressPolicy): number {
  if (policy.open) return policy.enforcesNames ? modes.openNamed : modes.open;
  return policy.enforcesNames ? modes.listedNamed : modes.listed;
}

function word(value: number): string {
  return value.toString(16).padStart(8, "0");
}

/** A protocol in one byte, a port in two, each at the start of its four. */
function portKey(protocol: Protocol, port: number): string {
  return `${protocolNumber[protocol].toString(16).padStart(2, "0")}000000${port.toString(16).padStart(4, "0")}0000`;
}

/** An interface's name as the kernel compares it: 16 bytes, filled up with zeroes. Source: IFNAMSIZ in linux/if.h */
function nameKey(name: string): string {
  const digits = Array.from(name, (letter) => letter.charCodeAt(0).toString(16).padStart(2, "0"));
  return digits.join("").padEnd(32, "0");
}
