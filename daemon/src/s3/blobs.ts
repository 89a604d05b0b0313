import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { isSquashError, SquashError } from "@squash/sdk/errors";
import { pause } from "../core/pause.js";
import { invalidObject } from "../core/remote/invalid-object.js";
import type { Bucket } from "./bucket.js";
import type { Cipher } from "./cipher.js";
import { BatchedWriter } from "./batched-writer.js";
import { diskError, isDiskError } from "./disk-error.js";
import type { Piece } from "./piece-reader.js";

const readTries = 5;
/** before the second try; what was answered whole and is wrong is not made right by time */
const retryMs = { unanswered: 400, wrong: 50 };
/** what has lain for so long is written anew when it is used again, so that no sweep that is under way takes it for unused */
const refreshAfterMs = 12 * 3_600_000;

/** Digests of what was sent anew, where nothing else that is there is believed to be whole. */
export type Renewed = Set<string>;

export interface KeepOptions {
  readonly signal: AbortSignal;
  /** @default null, which believes what is there as far as its size goes */
  readonly renewed?: Renewed | null;
}

/** Where the bytes of a piece are in the bucket. */
interface Source {
  readonly key: string;
  readonly start: number;
  readonly size: number;
}

/** Where a piece's bytes go, and where they are. */
interface Place {
  /** null where they are only checked */
  readonly file: FileHandle | null;
  readonly position: number;
  /** the object that has them at the same position; else it is one of their own */
  readonly within?: { readonly key: string };
  /** their digest is left to who compares that of the whole file; of an object that is not encrypted */
  readonly unchecked?: boolean;
}

/** Objects whose keys say what they hold: `blobs/sha256/<2 digits>/<digest>`, shared by all that name them. */
export class Blobs {
  readonly #bucket: Bucket;
  readonly #cipher: Cipher | null;

  constructor(bucket: Bucket, cipher: Cipher | null) {
    this.#bucket = bucket;
    this.#cipher = cipher;
  }

  /** The digest itself is not shown where the content is not. */
  keyOf(sha256: string): string {
    const name = this.#cipher?.nameOf(sha256) ?? sha256;
    return `blobs/sha256/${name.slice(0, 2)}/${name}`;
  }

  /** Bytes of the object that a piece of so many is. */
  sizeOf(size: number): number {
    return this.#cipher?.sealedSize(size) ?? size;
  }

  /** Whether it is there, whole, and nobody will take it for unused soon. */
  async isKept(sha256: string, size: number, { signal, renewed = null }: KeepOptions): Promise<boolean> {
    if (renewed?.has(sha256) === false) return false;
    const found = await this.#bucket.head(this.keyOf(sha256), signal);
    if (found?.size !== this.sizeOf(size)) return false;
    return Date.now() - found.modifiedMs < refreshAfterMs;
  }

  /** Makes sure that a piece is there. Returns the bytes that were sent. */
  async keep(piece: Piece, read: () => Promise<Buffer>, options: KeepOptions): Promise<number> {
    const { sha256, size } = piece;
    if (await this.isKept(sha256, size, options)) return 0;
    const sent = await this.#send(sha256, await read(), options.signal);
    options.renewed?.add(sha256);
    return sent;
  }

  /** Writes a piece's bytes to where they belong in a file, or only checks them. Throws `s3_object_missing`, `s3_object_invalid`. */
  async fetch(piece: Piece, place: Place, signal: AbortSignal): Promise<void> {
    const { position, within } = place;
    const size = this.sizeOf(piece.size);
    const source =
      within === undefined ? { key: this.keyOf(piece.sha256), start: 0, size } : { ...within, start: position, size };
    for (let tries = 1; ; tries++) {
      try {
        await this.#fetchOnce(piece, source, place, signal);
        return;
      } catch (error) {
        if (signal.aborted) throw cancelled(source.key, error);
        if (tries === readTries || !canPass(error)) throw error;
        const firstMs = isWrong(error) ? retryMs.wrong : retryMs.unanswered;
        await pause(firstMs * 2 ** (tries - 1) * (0.5 + Math.random()), signal);
      }
    }
  }

  async #send(sha256: string, plain: Buffer, signal: AbortSignal): Promise<number> {
    const metadata = { sha256 };
    if (this.#cipher === null) {
      // the store compares it with the digest: a file that has changed meanwhile is refused
      await this.#bucket.write(this.keyOf(sha256), plain, { signal, sha256, metadata });
      return plain.byteLength;
    }
    if (createHash("sha256").update(plain).digest("hex") !== sha256)
      throw new SquashError("s3_failed", "Cannot send the file to the bucket: it changed while it was read; try again");
    const sealed = this.#cipher.seal(sha256, plain);
    await this.#bucket.write(this.keyOf(sha256), sealed, { signal });
    return sealed.byteLength;
  }

  async #fetchOnce(
    { sha256, size }: Piece,
    source: Source,
    { file, position, unchecked = false }: Place,
    signal: AbortSignal,
  ): Promise<void> {
    const { key, start } = source;
    const body = await this.#bucket.readRange(key, { start, end: start + source.size }, signal);
    const hash = createHash("sha256");
    const sealed: Uint8Array[] = [];
    const output = new BatchedWriter(file, position);
    let length = 0;
    try {
      for await (const chunk of body) {
        length += chunk.byteLength;
        if (length > source.size) break;
        if (this.#cipher !== null) {
          sealed.push(chunk);
          continue;
        }
        if (!unchecked) hash.update(chunk);
        await output.write(chunk);
      }
      await output.flush();
    } catch (error) {
      const told = diskError(error);
      if (isDiskError(told)) throw told;
      throw invalidObject(key, `it broke off: ${(error as Error).message}`, error);
    }
    if (length !== source.size)
      throw invalidObject(key, `it has ${length} bytes from ${start} on, needed are ${source.size}`);
    if (this.#cipher !== null) {
      const plain = this.#cipher.open(sha256, Buffer.concat(sealed), size);
      if (plain === null) throw invalidObject(key, "it was not encrypted with this key, or is damaged");
      hash.update(plain);
      await output.write(plain);
      await output.flush();
    }
    if (unchecked && this.#cipher === null) return;
    const found = hash.digest("hex");
    if (found !== sha256) throw invalidObject(key, `its sha-256 is ${found} there, needed is ${sha256}`);
  }
}

/** Bytes that are wrong may be so on their way only. */
function canPass(error: unknown): boolean {
  return isSquashError(error) && (error.code === "s3_object_invalid" || error.code === "s3_unreachable");
}

/** Whether all came that was to come, and it is something else. */
function isWrong(error: unknown): boolean {
  return isSquashError(error) && error.code === "s3_object_invalid" && error.cause === undefined;
}

function cancelled(key: string, cause: unknown): SquashError {
  return new SquashError("cancelled", `Cannot read "${key}" in the bucket: cancelled`, { cause });
}
