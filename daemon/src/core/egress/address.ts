import ipaddr from "ipaddr.js";

export type Family = 4 | 6;

export interface Address {
  readonly family: Family;
  /** 32 or 128 bits */
  readonly value: bigint;
}

export interface Network {
  readonly family: Family;
  /** its first address */
  readonly value: bigint;
  readonly prefix: number;
}

/** Bits of an address. */
export function widthOf(family: Family): number {
  return family === 4 ? 32 : 128;
}

/** Reads an address in the forms that all programs read alike: IPv4 as four decimal parts, IPv6 without a zone. Null for anything else. */
export function parseAddress(text: string): Address | null {
  if (!text.includes(":")) {
    const value = parseFourParts(text);
    return value === null ? null : { family: 4, value: BigInt(value) };
  }
  const value = parseGroups(text);
  return value === null ? null : { family: 6, value };
}

/** Groups of up to four hexadecimal digits, the last two of which may be written as IPv4; once, `::` stands for zeros. */
function parseGroups(text: string): bigint | null {
  // the longest form, with IPv4 at the end
  if (text.length > 45) return null;
  const [head = "", tail, ...rest] = text.split("::");
  if (rest.length > 0) return null;
  const before = spellGroups(head, tail === undefined);
  const after = tail === undefined ? "" : spellGroups(tail, true);
  if (before === null || after === null) return null;
  const missing = 32 - before.length - after.length;
  // :: is for one group at least
  if (tail === undefined ? missing !== 0 : missing < 4) return null;
  return BigInt(`0x${before}${"0".repeat(missing)}${after}`);
}

/** Groups as four digits each; null where one is none. */
function spellGroups(text: string, isEnd: boolean): string | null {
  if (text === "") return "";
  let digits = "";
  const groups = text.split(":");
  for (const [at, group] of groups.entries()) {
    if (/^[0-9A-Fa-f]{1,4}$/.test(group)) {
      digits += group.padStart(4, "0");
      continue;
    }
    const inner = isEnd && at === groups.length - 1 ? parseFourParts(group) : null;
    if (inner === null) return null;
    digits += inner.toString(16).padStart(8, "0");
  }
  return digits;
}

function parseFourParts(text: string): number | null {
  if (text.length > 15) return null;
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  let value = 0;
  for (const part of parts) {
    // a leading zero makes it octal to some
    if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part)) return null;
    const byte = Number(part);
    if (byte > 255) return null;
    value = value * 256 + byte;
  }
  return value;
}

/** Reads `address/prefix`; bits behind the prefix must be zero. Null for anything else. */
export function parseNetwork(text: string): Network | null {
  const [host = "", length = "", ...rest] = text.split("/");
  const address = parseAddress(host);
  const prefix = address === null ? null : parsePrefix(length, address.family);
  if (address === null || prefix === null || rest.length > 0) return null;
  const network = networkAt(address, prefix);
  return network.value === address.value ? network : null;
}

/** Reads a network of our own. Throws an Error, as a bad one is a bug. */
export function readNetwork(text: string): Network {
  const network = parseNetwork(text);
  if (network === null) throw new Error(`Cannot read network "${text}"`);
  return network;
}

/** Reads a prefix length that the family can have. Null for anything else. */
export function parsePrefix(text: string, family: Family): number | null {
  return /^(?:0|[1-9][0-9]{0,2})$/.test(text) && Number(text) <= widthOf(family) ? Number(text) : null;
}

/** The network of a prefix length that an address is in. */
export function networkAt({ family, value }: Address, prefix: number): Network {
  const shift = BigInt(widthOf(family) - prefix);
  return { family, value: (value >> shift) << shift, prefix };
}

/** Whether all of `inner` is in `outer`, which may be the same. */
export function covers(outer: Network, inner: Address | Network): boolean {
  const innerPrefix = "prefix" in inner ? inner.prefix : widthOf(inner.family);
  if (outer.family !== inner.family || innerPrefix < outer.prefix) return false;
  const shift = BigInt(widthOf(outer.family) - outer.prefix);
  return outer.value >> shift === inner.value >> shift;
}

/** The canonical text; for IPv6 that of RFC 5952, but never with an IPv4 address in it. */
export function formatAddress({ family, value }: Address): string {
  if (family === 4) {
    const number = Number(value);
    return `${number >>> 24}.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`;
  }
  const parts = Array.from({ length: 8 }, (_, at) => Number((value >> BigInt(112 - 16 * at)) & 0xffffn));
  return new ipaddr.IPv6(parts).toRFC5952String();
}
