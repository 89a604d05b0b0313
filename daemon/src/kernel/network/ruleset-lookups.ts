import { formatAddress, networkAt } from "../../core/egress/address.js";
import { marks } from "../../core/egress/firewall.js";
import { lengthBlocks, undecided, type LengthBlock } from "../../core/egress/length-blocks.js";
import { specialRanges } from "../../core/egress/special-ranges.js";

/**
 * Entries by address: hash maps, one for each length of prefix. Interval sets would do this in one look-up, but cost a copy of everybody's
 * entries at each change.
 */

/** a verdict beside those of elements: the destination is not public; only an entry at least as precise as its special range undoes that */
export const special = 3;

const lengths4 = Array.from({ length: 33 }, (_, length) => length);
const lengths6 = Array.from({ length: 129 }, (_, length) => length);

export function maps4(): string {
  return lengths4.map((length) => mapsOf("ipv4_addr", String(length))).join("\n");
}

export function maps6(): string {
  const maps = lengths6.map((length) => mapsOf("ipv6_addr", `6_${length}`));
  return `  set links6 { type ifname . ipv6_addr; }
  map lengths6 { type ipv6_addr : mark; }
  map learned6 { type ipv6_addr . ipv6_addr : mark; flags timeout; }
  map learned6_port { type ipv6_addr . ipv6_addr . inet_proto . inet_service : mark; flags timeout; }
  set special6 { type ipv6_addr; flags interval; auto-merge; elements = { ${specialRanges[6].join(", ")} }; }
${maps.join("\n")}`;
}

function mapsOf(type: string, suffix: string): string {
  return `  map net${suffix} { type ${type} . ${type} : mark; }
  map port${suffix} { type ${type} . ${type} . inet_proto . inet_service : mark; }`;
}

/** Of IPv4 all are looked up, from the least precise to the most precise, so that the last hit decides. */
export function lookups4(ranges: readonly string[]): string {
  return `  chain by_address {
${levels(ranges, (length) => [netLookup(length), portLookup(length)])}
  }
  chain resolvers {
${levels(ranges, (length) => [portLookup(length)])}
    meta mark != ${marks.permitted} goto refuse
    jump by_address
    meta mark ${marks.permitted} goto permit
    goto refuse
  }`;
}

/** Look-ups from the least precise to the most precise, with the special ranges between them, each at its own precision. */
function levels(specialRanges: readonly string[], lookups: (length: number) => readonly string[]): string {
  return lengths4
    .flatMap((length) => {
      const ranges = specialRanges.filter((range) => range.endsWith(`/${length}`));
      return [
        ...(ranges.length === 0 ? [] : [`ip daddr { ${ranges.join(", ")} } meta mark set ${special}`]),
        ...lookups(length),
      ];
    })
    .map((line) => `    ${line}`)
    .join("\n");
}

/** The destination of a packet, as far as a prefix goes. */
function network(length: number): string {
  const bits = length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0;
  const mask = [24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join(".");
  return length === 32 ? "ip daddr" : `(ip daddr & ${mask})`;
}

function netLookup(length: number): string {
  return `meta mark set ip saddr . ${network(length)} map @net${length}`;
}

function portLookup(length: number): string {
  return `meta mark set ip saddr . ${network(length)} . meta l4proto . th dport map @port${length}`;
}

/**
 * Of IPv6 the first hit decides, from the most precise to the least precise. The mark begins as the blocks of lengths of which the sandbox has
 * entries: 258 look-ups would be dear, and nobody has entries of more than a few lengths. A verdict takes the place of all of that.
 */
export function lookups6(): string {
  const chains = lengthBlocks.map((block, at) => blockChains(block, at)).join("\n");
  return `${chains}
  chain by_address6 {
${walk("nets6_")}
  }
  chain resolvers6 {
${walk("ports6_")}
    meta mark != ${marks.permitted} goto refuse
    jump by_address6
    meta mark ${marks.permitted} goto permit
    goto refuse
  }`;
}

function blockChains({ lengths }: LengthBlock, at: number): string {
  const unless = `meta mark & ${undecided} == 0 return`;
  const nets = lengths.flatMap((length) => [portLookup6(length), netLookup6(length), unless]);
  const ports = lengths.flatMap((length) => [portLookup6(length), unless]);
  return `  chain nets6_${at} {
    ${nets.slice(0, -1).join("\n    ")}
  }
  chain ports6_${at} {
    ${ports.slice(0, -1).join("\n    ")}
  }`;
}

function walk(chain: "nets6_" | "ports6_"): string {
  const blocks = lengthBlocks.flatMap(({ bit, special: ranges }, at) => [
    `meta mark & ${bit} == ${bit} jump ${chain}${at}`,
    ...(ranges.length === 0
      ? []
      : [`meta mark & ${undecided} == ${undecided} ip6 daddr { ${ranges.join(", ")} } meta mark set ${special}`]),
  ]);
  const start = [`meta mark set ${undecided}`, "meta mark set ip6 saddr map @lengths6"];
  return [...start, ...blocks].map((line) => `    ${line}`).join("\n");
}

function network6(length: number): string {
  const ones = { family: 6, value: (1n << 128n) - 1n } as const;
  return length === 128 ? "ip6 daddr" : `(ip6 daddr & ${formatAddress(networkAt(ones, length))})`;
}

function netLookup6(length: number): string {
  // what a port has decided is more precise
  return `meta mark & ${undecided} == ${undecided} meta mark set ip6 saddr . ${network6(length)} map @net6_${length}`;
}

function portLookup6(length: number): string {
  return `meta mark set ip6 saddr . ${network6(length)} . meta l4proto . th dport map @port6_${length}`;
}
