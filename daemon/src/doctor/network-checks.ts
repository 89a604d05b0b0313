import { readFile } from "node:fs/promises";
import type { DoctorCheck } from "@squash/sdk/protocol";
import { addressNumber, addressText, type Subnet } from "../core/egress/firewall.js";
import { specialRanges } from "../core/egress/special-ranges.js";
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
    check("forwarding", false, async () => forwarding(await readOptional("/proc/sys/net/ipv4/conf/all/forwarding"))),
    check("host firewall", false, async () => hostFirewall(await readNft(["list", "chains"]))),
  ]);
}

/** Has nft and the kernel check the very rules, which are not loaded. */
async function nftables(subnet: Subnet): Promise<Finding> {
  const ports = { dnsUdp: 1, dnsTcp: 1, http: 1, tls: 1 };
  const facts = { ports, apiPort: null, specialRanges: specialRanges[4], connectionLimit: 1, closedInterfaces: [] };
  try {
    const text = renderRuleset({ ...facts, subnet: subnet.cidr, gateway: subnet.gateway });
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
