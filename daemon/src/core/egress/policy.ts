import { SquashError } from "@squash/sdk/errors";
import { covers, formatAddress, readNetwork } from "./address.js";
import type { Network } from "./address.js";
import { AddressTable } from "./address-table.js";
import type { NetworkRule } from "./address-table.js";
import type { AddressRule, EgressPolicy, NameGrant, PolicySpec, Protocol, Verdict } from "./egress-policy.js";
import { parseEntry, refuse } from "./entry.js";
import type { Entry, EntrySource } from "./entry.js";
import { NameTable } from "./name-table.js";
import type { NameRule } from "./name-table.js";
import { keyOf } from "./port-rules.js";
import { neverOpened } from "./special-ranges.js";

const maxEntries = 256;

const closed = neverOpened.map(({ range, problem }) => ({ network: readNetwork(range), problem }));
const everythingPublic: Verdict = { allowed: true, rule: "default: everything public" };
const nothingElse: Verdict = { allowed: false, rule: "default: nothing else" };
const publicAddress: Verdict = { allowed: true, rule: "public address" };
const notAPort: Verdict = { allowed: false, rule: "not a port" };
const none: Verdict = { allowed: false, rule: "none" };

type Rule = Entry & { readonly verdict: Verdict };

/**
 * Reads a policy. `context.subnets` are the networks whose addresses sandboxes get, which stay closed to all of them.
 * Throws `invalid_request`.
 */
export function parsePolicy(spec: PolicySpec, context: { readonly subnets: readonly string[] }): EgressPolicy {
  const allow = spec.allow ?? [];
  checkLength("allow_net", allow);
  checkLength("deny_net", spec.deny);
  const subnets = context.subnets.map(readNetwork);
  const denied = spec.deny.map((text) => ruleOf({ list: "deny_net", text }));
  if (allow.length > 0 && allow.every((text) => text === "none")) return silentPolicy;
  const allowed = allow.map((text) => {
    const source: EntrySource = { list: "allow_net", text };
    const rule = ruleOf(source);
    if (rule.target.kind === "network") checkOpenable(source, rule.target.network, subnets);
    return rule;
  });
  return new ParsedPolicy([...denied, ...allowed].toSorted(compareRules), { open: allow.length === 0, subnets });
}

function checkLength(list: EntrySource["list"], entries: readonly string[]): void {
  if (entries.length <= maxEntries) return;
  throw new SquashError(
    "invalid_request",
    `Cannot accept the request: ${list} must have at most ${maxEntries} entries`,
    {
      details: { field: list },
    },
  );
}

function ruleOf(source: EntrySource): Rule {
  const allowed = source.list === "allow_net";
  const { target, port } = parseEntry(source);
  return { target, port, verdict: { allowed, rule: `${allowed ? "allow" : "deny"} ${source.text}` } };
}

/** Refuses to open what stays closed in any case. A network that only has it inside is fine. */
function checkOpenable(source: EntrySource, network: Network, subnets: readonly Network[]): void {
  const never = closed.find((range) => covers(range.network, network));
  if (never !== undefined) refuse(source, never.problem);
  if (subnets.some((subnet) => covers(subnet, network))) {
    refuse(
      source,
      "which is in the sandboxes' own network: their addresses pass from one to another, and none reaches them",
    );
  }
}

/** Denials first, so that they count among rules on the same; the rest makes the answers independent of the entries' order. */
function compareRules(a: Rule, b: Rule): number {
  if (a.verdict.allowed !== b.verdict.allowed) return a.verdict.allowed ? 1 : -1;
  const byPort = (a.port === null ? 0 : keyOf(a.port)) - (b.port === null ? 0 : keyOf(b.port));
  return byPort || (a.verdict.rule < b.verdict.rule ? -1 : a.verdict.rule > b.verdict.rule ? 1 : 0);
}

class ParsedPolicy implements EgressPolicy {
  readonly silent = false;
  readonly open: boolean;
  readonly enforcesNames: boolean;
  readonly addressRules: readonly AddressRule[];
  readonly #names: NameTable;
  readonly #addresses: AddressTable;
  readonly #fallback: Verdict;

  /** `rules` are sorted; of those on the same, the first counts. */
  constructor(rules: readonly Rule[], options: { readonly open: boolean; readonly subnets: readonly Network[] }) {
    const names: NameRule[] = [];
    const networks: NetworkRule[] = [];
    for (const { target, port, verdict } of rules) {
      if (target.kind === "name") names.push({ name: target.name, wildcard: target.wildcard, port, verdict });
      else networks.push({ network: target.network, port, verdict });
    }
    this.open = options.open;
    this.enforcesNames = names.length > 0;
    this.#fallback = options.open ? everythingPublic : nothingElse;
    this.#names = new NameTable(names, this.#fallback);
    this.#addresses = new AddressTable(networks, options.subnets);
    this.addressRules = addressRulesOf(networks);
  }

  lookup(name: string): Verdict & { readonly wildcard: boolean } {
    return this.#names.decideAny(name);
  }

  grantOf(name: string): NameGrant {
    return this.#names.grantOf(name);
  }

  acceptsAnswer(address: string): Verdict {
    return this.#addresses.decideAny(address) ?? publicAddress;
  }

  connectByName(name: string, port: number, protocol: Protocol): Verdict {
    return isPort(port) ? this.#names.decide(name, port, protocol) : notAPort;
  }

  connectResolved(address: string, port: number, protocol: Protocol): Verdict {
    return isPort(port) ? (this.#addresses.decide(address, port, protocol) ?? publicAddress) : notAPort;
  }

  connectByAddress(address: string, port: number, protocol: Protocol): Verdict {
    return isPort(port) ? (this.#addresses.decide(address, port, protocol) ?? this.#fallback) : notAPort;
  }
}

const silentPolicy: EgressPolicy = {
  silent: true,
  open: false,
  enforcesNames: false,
  addressRules: [],
  lookup: () => ({ ...none, wildcard: false }),
  grantOf: () => ({ all: false, ports: [] }),
  acceptsAnswer: () => none,
  connectByName: () => none,
  connectResolved: () => none,
  connectByAddress: () => none,
};

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65_535;
}

function addressRulesOf(rules: readonly NetworkRule[]): AddressRule[] {
  const distinct = new Map<string, AddressRule>();
  for (const { network, port, verdict } of rules) {
    const text = formatAddress(network);
    const key = `${text}/${network.prefix} ${port === null ? "" : keyOf(port)}`;
    if (distinct.has(key)) continue;
    distinct.set(key, {
      family: network.family,
      network: text,
      prefix: network.prefix,
      port: port?.port ?? null,
      protocol: port?.protocol ?? null,
      allowed: verdict.allowed,
      rule: verdict.rule,
    });
  }
  return [...distinct.values()].toSorted(compareAddressRules);
}

/** The most precise first; the rest is for a stable order. */
function compareAddressRules(a: AddressRule, b: AddressRule): number {
  return (
    b.prefix - a.prefix ||
    Number(a.port === null) - Number(b.port === null) ||
    a.family - b.family ||
    (a.network < b.network ? -1 : a.network > b.network ? 1 : 0) ||
    (a.port ?? 0) - (b.port ?? 0) ||
    Number(a.protocol === "udp") - Number(b.protocol === "udp")
  );
}
