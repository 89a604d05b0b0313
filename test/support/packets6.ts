import { addressValue } from "../../daemon/src/core/egress/firewall.js";
import { checksum, icmpv6, ipv6, protocols, tcp, udp } from "./packets.js";

/** Packets of IPv6 as bytes. Source: RFC 8200 */

export interface Ends {
  readonly from: string;
  readonly to: string;
}

/** What may be between the first header and that of the transport, by number. */
export const extensions = { hopByHop: 0, routing: 43, fragment: 44, destination: 60 } as const;

/** An address as 16 bytes in hex. */
export function hex6(address: string): string {
  return addressValue(address).toString(16).padStart(32, "0");
}

export function packet6({ from, to }: Ends, next: number, payload: Buffer): Buffer {
  return ipv6(hex6(from), hex6(to), next, payload);
}

/** A datagram without the header of IPv6. IPv6 takes none without a checksum. */
export function udp6(ends: Ends, ports: readonly [number, number], text: string): Buffer {
  const message = udp(...ports, text);
  message.writeUInt16BE(checksumOf(ends, protocols.udp, message) || 0xffff, 6);
  return message;
}

/** The first packet of a connection, or another with `flags`, without the header of IPv6. */
export function tcp6(ends: Ends, ports: readonly [number, number], flags = 0x02): Buffer {
  const header = tcp({ from: "0.0.0.0", to: "0.0.0.0" }, ports, flags);
  header.writeUInt16BE(0, 16);
  header.writeUInt16BE(checksumOf(ends, protocols.tcp, header), 16);
  return header;
}

/** A message with the header of IPv6; `body` is what comes after the checksum. */
export function icmp6({ from, to }: Ends, type: number, body: Buffer): Buffer {
  return icmpv6(hex6(from), hex6(to), type, body);
}

/** Identifier, number and text of an echo request or its answer. */
export function echoBody(text: string): Buffer {
  return Buffer.concat([Buffer.from([0x12, 0x34, 0, 1]), Buffer.from(text)]);
}

/** Options of 8 bytes that say nothing, for hop-by-hop and destination. */
export function emptyOptions(next: number): Buffer {
  return Buffer.from([next, 0, 1, 4, 0, 0, 0, 0]);
}

/** A route of which no stop is left, of type 0. */
export function spentRoute(next: number): Buffer {
  return Buffer.from([next, 0, 0, 0, 0, 0, 0, 0]);
}

/** A route whose next and last stop is `last`, of type 4. Source: RFC 8754 */
export function segments(next: number, { last, first }: { readonly last: string; readonly first: string }): Buffer {
  return Buffer.concat([Buffer.from([next, 4, 4, 1, 1, 0, 0, 0]), Buffer.from(hex6(last) + hex6(first), "hex")]);
}

/** The header of a fragment that begins at `offset`, a multiple of 8. */
export function fragment(next: number, id: number, { offset = 0, more = false } = {}): Buffer {
  const header = Buffer.from([next, 0, 0, 0, 0, 0, 0, 0]);
  header.writeUInt16BE(offset | Number(more), 2);
  header.writeUInt32BE(id, 4);
  return header;
}

/** An option of a message among neighbours that says a hardware address: 1 the sender's, 2 the target's. */
export function hardwareOption(kind: 1 | 2, address: string): Buffer {
  return Buffer.concat([Buffer.from([kind, 1]), Buffer.from(address.replaceAll(":", ""), "hex")]);
}

function checksumOf({ from, to }: Ends, protocol: number, message: Buffer): number {
  const pseudo = Buffer.from(`${hex6(from)}${hex6(to)}`, "hex");
  const rest = Buffer.from([0, 0, message.length >> 8, message.length & 255, 0, 0, 0, protocol]);
  return checksum(Buffer.concat([pseudo, rest, message]));
}
