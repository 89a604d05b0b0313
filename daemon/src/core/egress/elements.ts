import type { AddressRule, EgressPolicy, NameGrant, Protocol } from "./egress-policy.js";
import {
  addressValue,
  linkName,
  marks,
  modes,
  type AddressValue,
  type FirewallElement,
  type SetName,
} from "./firewall.js";
import { blocksOf } from "./length-blocks.js";

const protocolNumber = { tcp: 6, udp: 17 } as const satisfies Record<Protocol, number>;

/** What the firewall has to know of a sandbox. */
export interface FirewallClient {
  readonly index: number;
  readonly address: number;
  /** null where it has no IPv6 */
  readonly address6: bigint | null;
  readonly policy: EgressPolicy;
  /** whether secrets are put in for it, which the proxy does */
  readonly hasSecrets: boolean;
  /** new connections a second; null for no limit of its own */
  readonly connectionsPerS: number | null;
}

/**
 * Everything by which the static ruleset knows a sandbox and its policy, apart from what names resolve to. Its packets are known by its link,
 * and, together with where they go to, by their address, which cannot be forged.
 */
export function clientElements(client: FirewallClient): FirewallElement[] {
  const { index, address, address6, policy, hasSecrets, connectionsPerS } = client;
  const link = nameKey(linkName(index));
  const rules = policy.addressRules.filter(({ family }) => family === 4);
  return [
    { set: "links", key: link + word(address) },
    { set: "refused", key: link },
    ...(policy.silent
      ? []
      : [{ set: "asking", key: link } as const, { set: "mode", key: link, mark: modeOf(policy, hasSecrets) } as const]),
    ...(policy.enforcesNames || hasSecrets ? [{ set: "proxied", key: link } as const] : []),
    ...(hasSecrets && !policy.silent ? [{ set: "explicit", key: link } as const] : []),
    ...(connectionsPerS === null ? [] : [{ set: "rates", key: link, rate: connectionsPerS } as const]),
    ...rules.map((rule) => ruleElement(address, rule)),
    ...(address6 === null ? [] : elements6(address6, link, policy)),
  ];
}

function elements6(address: bigint, link: string, policy: EgressPolicy): FirewallElement[] {
  const rules = policy.addressRules.filter(({ family }) => family === 6);
  const blocks = blocksOf(rules.map(({ prefix }) => prefix));
  return [
    { set: "links6", key: link + word(address) },
    ...(rules.length === 0 ? [] : [{ set: "lengths6", key: word(address), mark: blocks } as const]),
    ...rules.map((rule) => ruleElement(address, rule)),
  ];
}

function ruleElement(client: AddressValue, rule: AddressRule): FirewallElement {
  const { family, network, prefix, port, protocol, allowed } = rule;
  const mark = allowed ? marks.permitted : marks.refused;
  const target = word(client) + word(addressValue(network));
  if (port === null || protocol === null)
    return { set: family === 4 ? `net${prefix}` : `net6_${prefix}`, key: target, mark };
  const key = target + portKey(protocol, port);
  return { set: family === 4 ? `port${prefix}` : `port6_${prefix}`, key, mark };
}

/** What an address may be used for, since names have resolved to it. Both are of one family. Where names disagree, deny beats allow. */
export function learnedElements(
  client: AddressValue,
  destination: AddressValue,
  grants: readonly NameGrant[],
  timeoutS: number,
): FirewallElement[] {
  const target = word(client) + word(destination);
  const set = typeof destination === "bigint" ? "learned6" : "learned";
  const ports = new Map<string, boolean>();
  for (const { port, protocol, allowed } of grants.flatMap((grant) => grant.ports)) {
    const key = target + portKey(protocol, port);
    ports.set(key, allowed && (ports.get(key) ?? true));
  }
  const all = grants.some((grant) => grant.all);
  return [
    ...(all ? [{ set, key: target, mark: marks.permitted, timeoutS } as const] : []),
    ...[...ports].map(
      ([key, allowed]) =>
        ({ set: `${set}_port`, key, mark: allowed ? marks.permitted : marks.refused, timeoutS }) as const,
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

function modeOf(policy: EgressPolicy, hasSecrets: boolean): number {
  if (policy.open && !policy.enforcesNames) return hasSecrets ? modes.openProxied : modes.open;
  if (policy.open) return modes.openNamed;
  return policy.enforcesNames ? modes.listedNamed : modes.listed;
}

function word(value: AddressValue): string {
  return value.toString(16).padStart(typeof value === "bigint" ? 32 : 8, "0");
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
