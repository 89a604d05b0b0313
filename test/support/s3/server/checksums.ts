import { createHash, type Hash } from "node:crypto";
import { crc32 } from "node:zlib";

const hashes = ["sha1", "sha256", "md5"] as const;
/** as in the names of the headers "x-amz-checksum-…" */
export const checksumNames = ["crc32", "crc32c", "sha1", "sha256"] as const;
export type ChecksumName = (typeof checksumNames)[number];
export type SumName = ChecksumName | "md5";

/** Sums of one body, all computed while it passes. */
export class Sums {
  readonly #hashes: ReadonlyMap<SumName, Hash>;
  readonly #crcs = new Map<"crc32" | "crc32c", number>();
  #digests: Map<SumName, Buffer> | null = null;

  constructor(names: Iterable<SumName>) {
    const wanted = new Set(names);
    this.#hashes = new Map(hashes.filter((name) => wanted.has(name)).map((name) => [name, createHash(name)]));
    for (const name of ["crc32", "crc32c"] as const) if (wanted.has(name)) this.#crcs.set(name, 0);
  }

  update(piece: Buffer): void {
    for (const hash of this.#hashes.values()) hash.update(piece);
    for (const [name, value] of this.#crcs)
      this.#crcs.set(name, name === "crc32" ? crc32(piece, value) : crc32c(piece, value));
  }

  /** Of all that has passed; the sum must be one of those that were asked for. Nothing may pass after it. */
  of(name: SumName): Buffer {
    this.#digests ??= this.#finish();
    const digest = this.#digests.get(name);
    if (digest === undefined) throw new Error(`nobody asked for ${name}`);
    return digest;
  }

  #finish(): Map<SumName, Buffer> {
    const digests = new Map<SumName, Buffer>();
    for (const [name, hash] of this.#hashes) digests.set(name, hash.digest());
    for (const [name, value] of this.#crcs) {
      const digest = Buffer.alloc(4);
      digest.writeUInt32BE(value);
      digests.set(name, digest);
    }
    return digests;
  }
}

/** The polynomial of Castagnoli, bits reversed. Source: RFC 3720, appendix B.4 */
const castagnoli = 0x82f63b78;
const table = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 1 ? (value >>> 1) ^ castagnoli : value >>> 1;
  return value;
});

function crc32c(piece: Buffer, before: number): number {
  let value = ~before;
  for (const byte of piece) value = (table[(value ^ byte) & 255] ?? 0) ^ (value >>> 8);
  return ~value >>> 0;
}
