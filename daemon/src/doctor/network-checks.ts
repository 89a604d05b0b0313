import { readFile } from "node:fs/promises";
import type { DoctorCheck } from "@squash/sdk/protocol";
import { covers, formatAddress, readNetwork, type Network } from "../core/egress/address.js";
import { addressNumber, addressText, type Subnet, type Subnet6 } from "../core/egress/firewall.js";
import { specialRanges } from "../core/egress/special-ranges.js";
import { rulesetFacts } from "../kernel/network/firewall.js";
import { readNft, runNft } from "../kernel/network/nft.js";
import { renderRuleset } from "../kernel/network/ruleset.js";
import { check, readOptional, type Finding } from "./check.js";

/** What squashd needs of the machine's network. Without a subnet nothing is looked at. */
export function networkChecks({ subnet }: { readonly subnet: Subnet | null }): Promise<DoctorCheck[]> {
  if (subnet === null)
    return Promise.all([check("network", false, () => ({ ok: true, found: "SQUASH_SUBNET is none: loopback only" }))]);
  return Promise.all([
    check("nftables", true, () => nftables(subnet)),
    check("subnet", true, async () => subnetIsFree(subnet, await readFile("/proc/net/route", "utf8"))),
    ...(subnet.ipv6 === null ? [] : [ipv6Check(subnet.ipv6)]),
    check("forwarding", false, async () => forwarding(await readOptional("/proc/sys/net/ipv4/conf/all/forwarding"))),
    check("host firewall", false, async () => hostFirewall(await readNft(["list", "chains"]))),
  ]);
}

/** Has nft and the kernel check the very rules, which are not loaded. */
async function nftables(subnet: Subnet): Promise<Finding> {
  const ports = { dnsUdp: 1, dnsTcp: 1, http: 1, tls: 1, explicit: 1, http6: 1, tls6: 1 };
  const ranges = { specialRanges: specialRanges[4], closedInterfaces: [], isClosed6: false };
  try {
    const facts = rulesetFacts(subnet, { ports, apiPort: null, connectionLimit: 1, ...ranges });
    const text = renderRuleset(facts);
    await runNft(["-c", "-f", "-"], text, "check the firewall's rules");
    return { ok: true, found: "the kernel takes the firewall's rules" };
  } catch (error) {
    const advice = "apt-get install nftables and boot a kernel with nf_tables, or set SQUASH_SUBNET to none";
    return { ok: false, found: (error as Error).message, advice };
  }
}

/** Reads the content of /proc/net/route: hexadecimal numbers in the machine's byte order. Source: proc(5) */
export function subnetIsFree({ cidr, base }: Subnet, routes: string): Finding {
  const size = 2 ** (32 - Number(cidr.split("/")[1]));
  for (const line of routes.split("\n").slice(1)) {
    const [name = "", destination = "", , , , , , mask = ""] = line.split("\t");
    if (name === "" || /^sq\d+h$/.test(name)) continue;
    const first = swapped(destination);
    const routeSize = 2 ** 32 - swapped(mask);
    if (routeSize === 2 ** 32 || first + routeSize <= base || first >= base + size) continue;
    const found = `${cidr} overlaps the route to ${addressText(first)} over ${name}`;
    return { ok: false, found, advice: "set SQUASH_SUBNET to a private network that is free here" };
  }
  return { ok: true, found: `${cidr} is free` };
}

function ipv6Check(subnet: Subnet6): Promise<DoctorCheck> {
  return check("IPv6", true, async () => subnet6IsFree(subnet, await readOptional("/proc/net/ipv6_route")));
}

/**
 * Reads the content of /proc/net/ipv6_route: 32 digits of the destination, its prefix length in hexadecimal, then more, the interface at the
 * end. Null where the kernel has no IPv6. Source: net/ipv6/route.c
 */
export function subnet6IsFree({ cidr }: Subnet6, routes: string | null): Finding {
  if (routes === null)
    return {
      ok: false,
      found: "the kernel has no IPv6",
      advice: "set SQUASH_SUBNET6 to none, or boot without ipv6.disable",
    };
  const ours = readNetwork(cidr);
  for (const line of routes.split("\n")) {
    const fields = line.trim().split(/\s+/);
    const [destination = "", length = "", name = "lo"] = [fields[0], fields[1], fields.at(-1)];
    if (destination.length !== 32 || name === "lo" || /^sq\d+h$/.test(name)) continue;
    const route: Network = { family: 6, value: BigInt(`0x${destination}`), prefix: parseInt(length, 16) };
    // what is wide leads to the network, or nowhere
    if (route.prefix < 8 || !(covers(route, ours) || covers(ours, route))) continue;
    const found = `${cidr} overlaps the route to ${formatAddress(route)}/${route.prefix} over ${name}`;
    return { ok: false, found, advice: "set SQUASH_SUBNET6 to a network that is free here" };
  }
  return { ok: true, found: `${cidr} is free` };
}

function swapped(hex: string): number {
  return addressNumber([6, 4, 2, 0].map((at) => parseInt(hex.slice(at, at + 2), 16)).join("."));
}

function forwarding(general: string | null): Finding {
  if (general === "1") return { ok: true, found: "the machine forwards" };
  return {
    ok: true,
    found: "off; squashd opens the interfaces that are there for answers to sandboxes, and nothing else",
  };
}

/** Reads what `nft list chains` prints: base chains of others that drop what they do not know. */
export function hostFirewall(chains: string): Finding {
  const dropping: string[] = [];
  let [table, chain] = ["", ""];
  for (const line of chains.split("\n")) {
    table = /^table (.+) \{/.exec(line)?.[1] ?? table;
    chain = /^\s*chain (\S+) \{/.exec(line)?.[1] ?? chain;
    if (/hook (input|forward) .*policy drop/.test(line) && table !== "inet squash") dropping.push(`${table} ${chain}`);
  }
  if (dropping.length === 0) return { ok: true, found: "drops nothing of sandboxes by its policy" };
  return {
    ok: false,
    found: `${dropping.join(", ")} drops by default`,
    advice: 'sandboxes get no network unless it accepts what comes from and goes to interfaces "sq*h"',
  };
}
