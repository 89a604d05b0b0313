import { createHash, type Hash } from "node:crypto";
import { open, type FileHandle } from "node:fs/promises";
import { Writable, type Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { RunTool } from "./run-tool.js";

const deadlineMs = 10 * 60_000;

const compressions = [
  { magic: "1f8b", argv: ["gzip", "-dc"] },
  { magic: "fd377a585a00", argv: ["xz", "-dc"] },
  { magic: "28b52ffd", argv: ["zstd", "-dcq"] },
] as const;

/** A program and its arguments that unpacks from standard input to standard output. */
export type Unpacker = (typeof compressions)[number]["argv"];

/** What unpacks a file that starts with these bytes, of which it takes at least 8; null for one that is not packed by gzip, xz or zstd. */
export function unpackerOf(start: Buffer): Unpacker | null {
  const digits = start.toString("hex");
  return compressions.find(({ magic }) => digits.startsWith(magic))?.argv ?? null;
}

/** The first bytes of what a file has from `offset`. */
export async function firstBytes(path: string, offset = 0): Promise<Buffer> {
  await using file = await open(path, "r");
  const { bytesRead, buffer } = await file.read(Buffer.alloc(8), 0, 8, offset);
  return buffer.subarray(0, bytesRead);
}

interface UnpackOptions {
  /** what is unpacked, for messages */
  readonly target: string;
  /** bytes that may come out */
  readonly limit: number;
  readonly signal?: AbortSignal;
}

/**
 * Unpacks, or copies without an unpacker, to a new file at `path`, which only its owner can read. Returns what came out. Throws `build_failed`
 * or `cancelled`; more than `limit` bytes fail before they are on the disk.
 */
export async function unpackTo(
  run: RunTool,
  source: { readonly unpacker: Unpacker | null; readonly stdin: number | Readable },
  path: string,
  options: UnpackOptions,
): Promise<{ readonly size: number; readonly sha256: string }> {
  await using file = await open(path, "wx", 0o600);
  const output = new BoundedFile(file, options.limit);
  const { unpacker, stdin } = source;
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  if (unpacker === null && typeof stdin !== "number") await pipeline(stdin, output, signal);
  else
    await run(unpacker ?? ["cat"], {
      op: "decompress",
      target: options.target,
      stdin,
      stdout: output,
      deadlineMs,
      ...signal,
    });
  return { size: output.size, sha256: output.hash.digest("hex") };
}

/** A new file that fails, before the disk is full, when it would become too large. */
class BoundedFile extends Writable {
  readonly hash: Hash = createHash("sha256");
  size = 0;
  readonly #file: FileHandle;
  readonly #limit: number;

  constructor(file: FileHandle, limit: number) {
    super();
    this.#file = file;
    this.#limit = limit;
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: (error?: Error) => void): void {
    this.size += chunk.length;
    this.hash.update(chunk);
    if (this.size > this.#limit) done(new Error("it is too large"));
    else this.#file.writeFile(chunk).then(() => done(), done);
  }
}
