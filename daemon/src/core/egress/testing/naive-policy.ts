import type { Protocol } from "../egress-policy.js";
import { specialRanges } from "../special-ranges.js";

/** The rules of docs/egress.md once more, in the plainest way: try all entries, keep the best. Only for entries that are valid. */
export interface NaivePolicy {
  readonly allow: readonly string[];
  readonly deny: readonly string[];
}

type Decision = "allowed" | "denied" | "undecided";

interface Match {
  /** compared from left to right; the greater wins */
  readonly precision: readonly number[];
  readonly allowed: boolean;
}

export function connectByName({ allow, deny }: NaivePolicy, name: string, port: string): boolean {
  return orOpen(best(matches({ allow, deny }, (entry) => precisionByName(entry, name, port))), allow);
}

export function connectByAddress(policy: NaivePolicy, address: string, port: string): boolean {
  return orOpen(byAddress(policy, address, port), policy.allow);
}

export function connectResolved(policy: NaivePolicy, address: string, port: string): boolean {
  return byAddress(policy, address, port) !== "denied";
}

function byAddress(policy: NaivePolicy, address: string, port: string): Decision {
  if (prefixOf("10.200.0.0/14", address) !== null) return "denied";
  const found = matches(policy, (entry) => precisionByAddress(entry, address, port));
  for (const range of Object.values(specialRanges).flat()) {
    const prefix = prefixOf(range, address);
    if (prefix !== null) found.push({ precision: [prefix, -1], allowed: false });
  }
  return best(found);
}

function orOpen(decision: Decision, allow: readonly string[]): boolean {
  return decision === "undecided" ? allow.length === 0 : decision === "allowed";
}

function matches({ allow, deny }: NaivePolicy, precisionOf: (entry: string) => readonly number[] | null): Match[] {
  return [
    ...allow.map((entry) => ({ precision: precisionOf(entry), allowed: true })),
    ...deny.map((entry) => ({ precision: precisionOf(entry), allowed: false })),
  ].filter((match): match is Match => match.precision !== null);
}

function best(found: readonly Match[]): Decision {
  const [winner] = found.toSorted((a, b) => compare(b.precision, a.precision) || Number(a.allowed) - Number(b.allowed));
  if (winner === undefined) return "undecided";
  return winner.allowed ? "allowed" : "denied";
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (const [at, value] of a.entries()) if (value !== b[at]) return value - b[at]!;
  return 0;
}

/** Labels of a wildcard count less than those of a name that is written out. */
function precisionByName(entry: string, name: string, port: string): readonly number[] | null {
  const [host, wanted] = splitPort(entry);
  if (wanted !== null && wanted !== port) return null;
  const labels = host.split(".").length;
  if (host === name) return [1000, wanted === null ? 0 : 1];
  return host.startsWith("*.") && name.endsWith(host.slice(1)) ? [labels, wanted === null ? 0 : 1] : null;
}

function precisionByAddress(entry: string, address: string, port: string): readonly number[] | null {
  const [network, wanted] = splitPort(entry);
  if (wanted !== null && wanted !== port) return null;
  const prefix = prefixOf(network, address);
  return prefix === null ? null : [prefix, wanted === null ? 0 : 1];
}

/** `host` or `host:port`, IPv6 in brackets where it has a port; the port as `22/tcp`. */
function splitPort(entry: string): [string, string | null] {
  const bracketed = /^\[(.*)\](\/\d+)?:(.*)$/.exec(entry);
  if (bracketed !== null) return [`${bracketed[1]}${bracketed[2] ?? ""}`, withProtocol(bracketed[3]!)];
  const parts = entry.split(":");
  return parts.length === 2 ? [parts[0]!, withProtocol(parts[1]!)] : [entry, null];
}

function withProtocol(port: string): string {
  return port.includes("/") ? port : `${port}/${"tcp" satisfies Protocol}`;
}

/** The prefix length of a network that has the address; null if it has not. */
export function prefixOf(network: string, address: string): number | null {
  const [first, length] = network.split("/");
  const [start, bits] = [bitsOf(first!), bitsOf(address)];
  if (start === null || bits?.length !== start.length) return null;
  const prefix = length === undefined ? bits.length : Number(length);
  return bits.startsWith(start.slice(0, prefix)) ? prefix : null;
}

/** An address as 32 or 128 characters 0 and 1; null for a name. */
function bitsOf(address: string): string | null {
  const bits = known.get(address) ?? spellBits(address);
  known.set(address, bits);
  return bits;
}

/** The tests have few addresses, and ask for them often. */
const known = new Map<string, string | null>();

function spellBits(address: string): string | null {
  if (/^[\d.]+$/.test(address)) {
    return address
      .split(".")
      .map((part) => binary(Number(part), 8))
      .join("");
  }
  if (!address.includes(":")) return null;
  const [head = "", tail = ""] = address.split("::");
  const spell = (text: string): string =>
    text === ""
      ? ""
      : text
          .split(":")
          .map((part) => binary(parseInt(part, 16), 16))
          .join("");
  const [before, after] = [spell(head), spell(tail)];
  return before + "0".repeat(128 - before.length - after.length) + after;
}

function binary(value: number, width: number): string {
  return value.toString(2).padStart(width, "0");
}
