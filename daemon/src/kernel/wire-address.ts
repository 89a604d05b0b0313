import type { AddressValue } from "../core/egress/firewall.js";
import type { FieldReader, FieldWriter } from "./frame.js";

/** IPv4 is written as IPv6 here: native/src/address.h has the same form, four numbers of 32 bits, of which zeroes are none. */
const mapped = 0xffffn;

export function writeAddress(fields: FieldWriter, address: AddressValue): FieldWriter {
  const value = typeof address === "number" ? (mapped << 32n) | BigInt(address) : address;
  for (const shift of [96n, 64n, 32n, 0n]) fields.u32(Number((value >> shift) & 0xffffffffn));
  return fields;
}

export function readAddress(fields: FieldReader): AddressValue {
  const [first, second, third, fourth] = [fields.u32(), fields.u32(), fields.u32(), fields.u32()];
  if (first === 0 && second === 0 && third === 0xffff) return fourth;
  return [first, second, third, fourth].reduce((value, word) => (value << 32n) | BigInt(word), 0n);
}
