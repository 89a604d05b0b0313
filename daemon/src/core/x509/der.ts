/** Writes what X.509 needs of the distinguished encoding rules. Source: ITU-T X.690 */

/** One value with its tag and length; `contents` are the encodings of what it consists of. */
function der(tag: number, ...contents: readonly Uint8Array[]): Uint8Array {
  const body = Buffer.concat(contents);
  return Buffer.concat([Buffer.from([tag, ...lengthOf(body.length)]), body]);
}

export const sequence = (...contents: readonly Uint8Array[]): Uint8Array => der(0x30, ...contents);
export const setOf = (...contents: readonly Uint8Array[]): Uint8Array => der(0x31, ...contents);
export const octets = (bytes: Uint8Array): Uint8Array => der(0x04, bytes);
export const utf8 = (text: string): Uint8Array => der(0x0c, Buffer.from(text));
export const truth = (): Uint8Array => der(0x01, Buffer.from([0xff]));
/** in a context of its own: constructed */
export const tagged = (tag: number, ...contents: readonly Uint8Array[]): Uint8Array => der(0xa0 | tag, ...contents);
/** in place of the tag of a primitive */
export const primitive = (tag: number, bytes: Uint8Array): Uint8Array => der(0x80 | tag, bytes);

/** A string of bits of which the last `unused` are none. */
export function bits(bytes: Uint8Array, unused = 0): Uint8Array {
  return der(0x03, Buffer.from([unused]), bytes);
}

/** A number that is not negative, of any size, its first byte first. */
export function integer(bytes: Uint8Array): Uint8Array {
  let at = 0;
  while (at < bytes.length - 1 && bytes[at] === 0) at += 1;
  const rest = bytes.subarray(at);
  const first = rest[0] ?? 0;
  return first >= 0x80 ? der(0x02, Buffer.from([0]), rest) : der(0x02, rest.length === 0 ? Buffer.from([0]) : rest);
}

/** An object identifier, as `2.5.29.17`. */
export function oid(text: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
  return der(0x06, Buffer.from([40 * first + second, ...rest.flatMap(base128)]));
}

/** A moment, to the second; as X.509 wants it, in two notations. Source: RFC 5280, section 4.1.2.5 */
export function time(date: Date): Uint8Array {
  const digits = date.toISOString().replace(/[-:T]/g, "").slice(0, 14);
  const long = date.getUTCFullYear() >= 2050;
  return der(long ? 0x18 : 0x17, Buffer.from(`${long ? digits : digits.slice(2)}Z`));
}

function lengthOf(length: number): number[] {
  if (length < 0x80) return [length];
  const bytes: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
  return [0x80 | bytes.length, ...bytes];
}

function base128(value: number): number[] {
  const bytes = [value % 128];
  for (let rest = Math.floor(value / 128); rest > 0; rest = Math.floor(rest / 128)) bytes.unshift((rest % 128) | 0x80);
  return bytes;
}

/** The values that a constructed one consists of, each with its tag and length. Throws `RangeError` where it is cut off. */
export function partsOf(value: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let at = headLength(value, 0);
  const end = at + contentLength(value, 0);
  while (at < end) {
    const next = at + headLength(value, at) + contentLength(value, at);
    if (next > end || next > value.length) throw new RangeError("a value is longer than what holds it");
    parts.push(value.subarray(at, next));
    at = next;
  }
  return parts;
}

function headLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at + 1] ?? 0;
  return first < 0x80 ? 2 : 2 + (first & 0x7f);
}

function contentLength(bytes: Uint8Array, at: number): number {
  const size = headLength(bytes, at) - 2;
  if (size === 0) return bytes[at + 1] ?? 0;
  return bytes.subarray(at + 2, at + 2 + size).reduce((length, byte) => length * 256 + byte, 0);
}
