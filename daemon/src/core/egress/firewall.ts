import { formatAddress, parseAddress } from "./address.js";

/** The kernel's part of the egress policy, as the domain sees it: sets of a static ruleset, tracked connections, links. */

/** Verdicts that maps of the ruleset hold. */
export const marks = { permitted: 1, refused: 2 } as const;

/** Which chain of the ruleset decides on a sandbox's new connections; what no chain is named for is refused. */
export const modes = { open: 11, openNamed: 12, listed: 13, listedNamed: 14, openProxied: 15 } as const;

/** TCP port on the gateway's address at which sandboxes with secrets find the proxy. */
export const proxyPort = 8888;

/** An address as a number: of IPv4 a plain one, of IPv6 a bigint. */
export type AddressValue = number | bigint;

/**
 * Sets and maps of the ruleset; `net` and `port` have one map for each length of prefix: net0 … net32, port0 … port32. Those with `6` at the
 * end, or behind `net` and `port`, are of IPv6.
 */
export type SetName =
  | "links"
  | "links6"
  | "asking"
  | "proxied"
  | "explicit"
  | "mode"
  | "refused"
  | "rates"
  | "learned"
  | "learned_port"
  | "learned6"
  | "learned6_port"
  | "lengths6"
  | `net${number}`
  | `port${number}`
  | `net6_${number}`
  | `port6_${number}`;

export interface FirewallElement {
  readonly set: SetName;
  /** parts in the kernel's layout, each filled up to four bytes, as hexadecimal digits */
  readonly key: string;
  /** seconds after which the kernel drops it by itself; absent for never */
  readonly timeoutS?: number;
  /** what a map holds for it */
  readonly mark?: number;
  /** how many packets a second may pass before the element of `rates` is met */
  readonly rate?: number;
}

/** A tracked connection as the sandbox opened it. For ICMP the ports are its identifier and its type and code. */
export interface Flow {
  readonly destination: AddressValue;
  readonly destinationPort: number;
  readonly sourcePort: number;
  /** IP protocol number: 1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6 */
  readonly protocol: number;
  /** whether it leads to squashd (its resolver, its proxy) instead */
  readonly redirected: boolean;
}

/** What has passed the link of a cell since it was made. */
export interface LinkTraffic {
  readonly sentBytes: number;
  readonly sentPackets: number;
  readonly receivedBytes: number;
  readonly receivedPackets: number;
  /** packets that the firewall refused, most of them the first of a connection */
  readonly refusedPackets: number;
}

/** A packet that the firewall decided on and tells of; not of all, since a flood of packets must not become a flood of news. */
export interface LoggedPacket {
  readonly index: number;
  readonly allowed: boolean;
  readonly destination: AddressValue;
  readonly port: number;
  readonly protocol: number;
}

/** Every method throws `SquashError` "kernel". */
export interface Firewall {
  /** The subnet that sandboxes get their addresses from, and the address that is the gateway of all of them. */
  readonly subnet: Subnet;
  /** All or nothing. Removing what is not there fails. */
  update(remove: readonly FirewallElement[], add: readonly FirewallElement[]): Promise<void>;
  traffic(index: number): Promise<LinkTraffic>;
  flows(index: number): Promise<Flow[]>;
  /** Has the next packet of each of these be decided on as a first one. */
  cut(index: number, flows: readonly Flow[]): Promise<void>;
  /** Limits the bandwidth in bytes a second; 0 is no limit. */
  shape(index: number, rates: { readonly toCell: number; readonly fromCell: number }): Promise<void>;
  onPacket(listener: (packet: LoggedPacket) => void): void;
}

export interface Subnet {
  readonly cidr: string;
  /** the first address, as a number */
  readonly base: number;
  readonly gateway: string;
  /** null where sandboxes have no IPv6 */
  readonly ipv6: Subnet6 | null;
}

export interface Subnet6 {
  readonly cidr: string;
  /** the first address */
  readonly base: bigint;
  readonly gateway: string;
}

/** The address of a cell's link; native/src/link.h has the same rule. */
export function linkAddress(subnet: Subnet, index: number): number {
  return subnet.base + 2 + index;
}

/** The same of IPv6. */
export function linkAddress6(subnet: Subnet6, index: number): bigint {
  return subnet.base + 2n + BigInt(index);
}

/** Name of the host's end of a cell's link. */
export function linkName(index: number): string {
  return `sq${index}h`;
}

export function addressText(address: AddressValue): string {
  if (typeof address === "bigint") return formatAddress({ family: 6, value: address });
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

/** Throws for anything but four plain numbers. */
export function addressNumber(text: string): number {
  const parts = text.split(".").map(Number);
  if (parts.length !== 4 || parts.some((part) => !(part >= 0 && part <= 255)))
    throw new Error(`"${text}" is no IPv4 address`);
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}

/** Of either family. Throws for what is no address. */
export function addressValue(text: string): AddressValue {
  const address = parseAddress(text);
  if (address === null) throw new Error(`"${text}" is no address`);
  return address.family === 6 ? address.value : Number(address.value);
}
