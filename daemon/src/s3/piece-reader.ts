import { createHash, type Hash } from "node:crypto";
import { closeSync, constants, openSync, readSync } from "node:fs";
import { blockBytes, ContentCutter, maxPieceBytes, type Cut } from "./pieces.js";

export interface Piece {
  /** 64 hexadecimal digits */
  readonly sha256: string;
  /** bytes */
  readonly size: number;
}

const readBytes = 1_048_576;

/**
 * Reads a file through and tells of its pieces, one after another; returns its size, and the digest of all of it where it is cut evenly. For a thread of its own: it blocks. Throws
 * errors of the system.
 */
export function* readPieces(
  path: string,
  cut: Cut,
): Generator<Piece, { readonly sha256: string | null; readonly size: number }> {
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const whole = cut === "even" ? createHash("sha256") : null;
    const buffer = Buffer.alloc(readBytes);
    const open = new OpenPiece(cut);
    let size = 0;
    for (let read = 1; read > 0; size += read) {
      read = fill(file, buffer, size);
      const chunk = buffer.subarray(0, read);
      whole?.update(chunk);
      yield* open.take(chunk);
    }
    yield* open.end();
    return { sha256: whole?.digest("hex") ?? null, size };
  } finally {
    closeSync(file);
  }
}

/** The piece that is being read. */
class OpenPiece {
  readonly #cutter: ContentCutter | null;
  #hash: Hash = createHash("sha256");
  #size = 0;

  constructor(cut: Cut) {
    this.#cutter = cut === "content" ? new ContentCutter() : null;
  }

  *take(chunk: Buffer): Generator<Piece> {
    let from = 0;
    for (let at = 0; at < chunk.byteLength; at += blockBytes) {
      const end = Math.min(at + blockBytes, chunk.byteLength);
      const ends =
        this.#cutter === null
          ? this.#size + (end - from) === maxPieceBytes
          : this.#cutter.endsWith(chunk.subarray(at, end));
      if (!ends) continue;
      this.#add(chunk.subarray(from, end));
      from = end;
      yield this.#close();
    }
    this.#add(chunk.subarray(from));
  }

  *end(): Generator<Piece> {
    if (this.#size > 0) yield this.#close();
  }

  #add(bytes: Buffer): void {
    this.#hash.update(bytes);
    this.#size += bytes.byteLength;
  }

  #close(): Piece {
    const piece = { sha256: this.#hash.digest("hex"), size: this.#size };
    this.#hash = createHash("sha256");
    this.#size = 0;
    return piece;
  }
}

/** Reads until the buffer is full or the file at its end. */
function fill(file: number, buffer: Buffer, position: number): number {
  let filled = 0;
  for (let read = 1; read > 0 && filled < buffer.byteLength; filled += read)
    read = readSync(file, buffer, filled, buffer.byteLength - filled, position + filled);
  return filled;
}
