/** Packets as bytes, for attackers that write their own headers. */

export interface Ipv4Packet {
  readonly from: string;
  readonly to: string;
  /** number of the protocol above it */
  readonly protocol: number;
  readonly payload: Buffer;
  /** of the whole packet that a fragment is of */
  readonly id?: number;
  /** where a fragment begins, in bytes; a multiple of 8 */
  readonly offset?: number;
  /** whether further fragments follow */
  readonly more?: boolean;
  /** options, a multiple of 4 bytes */
  readonly options?: Buffer;
}

export const protocols = { icmp: 1, tcp: 6, udp: 17, ipv6: 41, gre: 47, sctp: 132 } as const;

export function ipv4(packet: Ipv4Packet): Buffer {
  const { options = Buffer.alloc(0), offset = 0, more = false } = packet;
  const header = Buffer.alloc(20);
  header[0] = 0x45 + options.length / 4;
  header.writeUInt16BE(20 + options.length + packet.payload.length, 2);
  header.writeUInt16BE(packet.id ?? 1, 4);
  header.writeUInt16BE((more ? 0x2000 : 0) | (offset / 8), 6);
  header[8] = 64;
  header[9] = packet.protocol;
  addressBytes(packet.from).copy(header, 12);
  addressBytes(packet.to).copy(header, 16);
  const whole = Buffer.concat([header, options]);
  whole.writeUInt16BE(checksum(whole), 10);
  return Buffer.concat([whole, packet.payload]);
}

/** One that has no checksum, which IPv4 allows. */
export function udp(fromPort: number, toPort: number, text: string): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(fromPort, 0);
  header.writeUInt16BE(toPort, 2);
  header.writeUInt16BE(8 + text.length, 4);
  return Buffer.concat([header, Buffer.from(text, "latin1")]);
}

/** The first packet of a connection, or another with `flags`. */
export function tcp(places: Pick<Ipv4Packet, "from" | "to">, ports: readonly [number, number], flags = 0x02): Buffer {
  const header = Buffer.alloc(20);
  header.writeUInt16BE(ports[0], 0);
  header.writeUInt16BE(ports[1], 2);
  header.writeUInt32BE(1_000, 4);
  header[12] = 0x50;
  header[13] = flags;
  header.writeUInt16BE(65_535, 14);
  const pseudo = Buffer.concat([addressBytes(places.from), addressBytes(places.to), Buffer.from([0, 6, 0, 20])]);
  header.writeUInt16BE(checksum(Buffer.concat([pseudo, header])), 16);
  return header;
}

export function icmp(type: number, text: string): Buffer {
  const message = Buffer.concat([Buffer.from([type, 0, 0, 0, 0x12, 0x34, 0, 1]), Buffer.from(text, "latin1")]);
  message.writeUInt16BE(checksum(message), 2);
  return message;
}

export function frame(to: string, from: string, type: number, payload: Buffer): Buffer {
  const kind = Buffer.alloc(2);
  kind.writeUInt16BE(type);
  return Buffer.concat([hardwareBytes(to), hardwareBytes(from), kind, payload]);
}

/** Claims that an address is at a hardware address. */
export function arp(claim: { readonly address: string; readonly at: string; readonly toldTo: string }): Buffer {
  const start = Buffer.from([0, 1, 8, 0, 6, 4, 0, 2]);
  return Buffer.concat([
    start,
    hardwareBytes(claim.at),
    addressBytes(claim.address),
    Buffer.alloc(6, 255),
    addressBytes(claim.toldTo),
  ]);
}

/** From and to 16 bytes in hex. */
export function ipv6(from: string, to: string, next: number, payload: Buffer): Buffer {
  const header = Buffer.from([0x60, 0, 0, 0, payload.length >> 8, payload.length & 255, next, 255]);
  return Buffer.concat([header, Buffer.from(from, "hex"), Buffer.from(to, "hex"), payload]);
}

/** A message by IPv6, from and to 16 bytes in hex. */
export function icmpv6(from: string, to: string, type: number, body: Buffer): Buffer {
  const message = Buffer.concat([Buffer.from([type, 0, 0, 0]), body]);
  const pseudo = Buffer.concat([Buffer.from(from + to, "hex"), Buffer.from([0, 0, 0, message.length, 0, 0, 0, 58])]);
  message.writeUInt16BE(checksum(Buffer.concat([pseudo, message])), 2);
  return ipv6(from, to, 58, message);
}

function addressBytes(address: string): Buffer {
  return Buffer.from(address.split(".").map(Number));
}

function hardwareBytes(address: string): Buffer {
  return Buffer.from(address.replaceAll(":", ""), "hex");
}

/** Source: RFC 1071 */
export function checksum(bytes: Buffer): number {
  const padded = bytes.length % 2 === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(1)]);
  let sum = 0;
  for (let at = 0; at < padded.length; at += 2) sum += padded.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
