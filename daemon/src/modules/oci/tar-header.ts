/** Bytes of a block, which everything in a tar file is a multiple of. */
export const blockBytes = 512;

/** One header block; texts hold a byte in each character (latin1), since names of files are bytes. */
export interface TarHeader {
  readonly name: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** bytes that follow, unpadded */
  readonly size: number;
  /** seconds since 1970 */
  readonly mtimeS: number;
  /** `0` for a plain file, and so on */
  readonly type: string;
  readonly linkname: string;
}

/** Reads a header block. Throws `RangeError` for what is none. Source: POSIX pax "ustar Interchange Format", GNU tar manual "Basic Tar Format". */
export function parseHeader(block: Buffer): TarHeader {
  if (number(block, 148, 8) !== checksum(block)) throw new RangeError("a header has a wrong checksum");
  const isPosix = block.toString("latin1", 257, 263) === "ustar\0";
  const prefix = isPosix ? text(block, 345, 155) : "";
  const name = text(block, 0, 100);
  const type = block.toString("latin1", 156, 157);
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    mode: number(block, 100, 8),
    uid: number(block, 108, 8),
    gid: number(block, 116, 8),
    size: number(block, 124, 12),
    mtimeS: number(block, 136, 12),
    type: type === "\0" || type === "7" ? "0" : type,
    linkname: text(block, 157, 100),
  };
}

/** Whether a block is all zero, which ends a tar file. */
export function isZero(block: Buffer): boolean {
  return block.every((byte) => byte === 0);
}

/** Reads the records of a pax header, later ones winning. Throws `RangeError`. Source: POSIX pax "pax Extended Header". */
export function parsePax(bytes: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  for (let at = 0; at < bytes.length;) {
    const blank = bytes.indexOf(0x20, at);
    const digits = blank < 0 ? "" : bytes.toString("latin1", at, blank);
    const end = at + Number(/^\d{1,9}$/.test(digits) ? digits : Number.NaN);
    const equals = bytes.indexOf(0x3d, blank);
    if (!(end <= bytes.length) || equals < 0 || equals >= end || bytes[end - 1] !== 0x0a)
      throw new RangeError("a pax header is damaged");
    records.set(bytes.toString("latin1", blank + 1, equals), Buffer.from(bytes.subarray(equals + 1, end - 1)));
    at = end;
  }
  return records;
}

/** Makes a header block, for values that fit in one: names up to 100 bytes, numbers as `fitsOctal` says. */
export function formatHeader(header: TarHeader): Buffer {
  const block = Buffer.alloc(blockBytes);
  block.write(header.name, 0, 100, "latin1");
  octal(block, header.mode, 100, 8);
  octal(block, header.uid, 108, 8);
  octal(block, header.gid, 116, 8);
  octal(block, header.size, 124, 12);
  octal(block, header.mtimeS, 136, 12);
  block.write(header.type, 156, 1, "latin1");
  block.write(header.linkname, 157, 100, "latin1");
  block.write("ustar\x0000", 257, 8, "latin1");
  octal(block, 0, 329, 8); // of devices, which are only ever 0/0
  octal(block, 0, 337, 8);
  block.write(`${checksum(block).toString(8).padStart(6, "0")}\0 `, 148, 8, "latin1");
  return block;
}

/** Whether a number fits in a field of that many bytes. */
export function fitsOctal(value: number, width: 8 | 12): boolean {
  return value < 8 ** (width - 1);
}

/** Makes the record of a pax header; its length counts its own digits. */
export function formatPaxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), value, Buffer.from("\n")]);
  let length = rest.length;
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function octal(block: Buffer, value: number, at: number, width: number): void {
  block.write(value.toString(8).padStart(width - 1, "0"), at, width - 1, "latin1");
}

function text(block: Buffer, at: number, width: number): string {
  const field = block.subarray(at, at + width);
  const end = field.indexOf(0);
  return field.toString("latin1", 0, end < 0 ? width : end);
}

/** Octal digits, or GNU's two's complement for what has no room in them. */
function number(block: Buffer, at: number, width: number): number {
  const first = block[at] ?? 0;
  if ((first & 0x80) === 0) {
    const digits = text(block, at, width).trim();
    if (!/^[0-7]*$/.test(digits)) throw new RangeError("a header has a field that is no number");
    return digits === "" ? 0 : Number.parseInt(digits, 8);
  }
  let value = BigInt.asIntN(7, BigInt(first & 0x7f));
  for (const byte of block.subarray(at + 1, at + width)) value = value * 256n + BigInt(byte);
  const result = Number(value);
  if (!Number.isSafeInteger(result)) throw new RangeError("a header has a number that is too large");
  return result;
}

/** The sum of all bytes, as if the field of the sum were blanks. */
function checksum(block: Buffer): number {
  let sum = 8 * 0x20;
  for (let at = 0; at < blockBytes; at++) if (at < 148 || at >= 156) sum += block[at] ?? 0;
  return sum;
}
