import { mkdir, open, readFile, rm, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { invalidObject } from "../core/remote/invalid-object.js";
import { Slots } from "../core/slots.js";
import { writeAtomically } from "../store/atomic-file.js";
import type { Blobs, KeepOptions } from "./blobs.js";
import type { Bucket, UploadedPart } from "./bucket.js";
import { diskError, isDiskError } from "./disk-error.js";
import { digestOf, GrowingDigest } from "./growing-digest.js";
import { PieceBuffers } from "./piece-buffers.js";
import type { Piece } from "./piece-reader.js";
import { maxPieceBytes, type Cut } from "./pieces.js";
import { piecesOf } from "./piece-source.js";
import { matchingPieces } from "./piece-match.js";
import { inParallel } from "./pool.js";
import type { StoredFile } from "./stored-file.js";

/** pieces of a file on their way at a time; each may take its size in memory */
const parallel = 6;
/** of all files that are sent at a time */
const sentAtOnce = 8;
/** parts of one object, as the protocol allows */
const maxParts = 10_000;

/** Told of bytes that have gone, or come, or that need not. */
export type Progress = (bytes: number) => void;

interface SendOptions extends KeepOptions {
  readonly progress?: Progress;
}

interface Sent {
  readonly file: StoredFile;
  /** bytes that were sent, in distinction to those that were there */
  readonly sentBytes: number;
}

/** A part that has arrived, and what it held: the file may be another by the next try. */
interface NotedPart extends UploadedPart {
  readonly sha256: string;
}

interface PlacedPiece extends Piece {
  readonly index: number;
  readonly position: number;
}

/** A file that is being fetched. */
interface FetchedFile {
  readonly path: string;
  readonly file: FileHandle;
  readonly placed: readonly PlacedPiece[];
}

/** Files in the bucket, sent and fetched in parallel. What breaks off is gone on with, also after a crash. */
export class BucketFiles {
  readonly #bucket: Bucket;
  readonly #blobs: Blobs;
  readonly #folder: string;
  readonly #canKeepWhole: boolean;
  readonly #sending = new Slots(sentAtOnce);

  /** `folder` is for notes of what is on its way; with `canKeepWhole` false all files are kept in pieces. */
  constructor(bucket: Bucket, blobs: Blobs, options: { readonly folder: string; readonly canKeepWhole: boolean }) {
    this.#bucket = bucket;
    this.#blobs = blobs;
    this.#folder = options.folder;
    this.#canKeepWhole = options.canKeepWhole;
  }

  /** The key of the object that a file's bytes are in, where they are in one. */
  wholeKey({ stored, sha256 }: StoredFile): string | null {
    return stored === "whole" && sha256 !== null ? this.#blobs.keyOf(sha256) : null;
  }

  /** Sends a file that is cut where its content says so: only what is not there yet. */
  async sendByContent(path: string, options: SendOptions): Promise<Sent> {
    return this.#sendPieces(path, "content", options);
  }

  /** Sends a file that has this digest, as one object where that can be. Throws `s3_failed` where it has another. */
  async send(path: string, sha256: string, options: SendOptions): Promise<Sent> {
    if (!this.#canKeepWhole) {
      const sent = await this.#sendPieces(path, "even", options);
      refuseOther(path, sent.file.sha256, sha256);
      return sent;
    }
    return this.#sendWhole(path, sha256, options);
  }

  /**
   * Fetches a file to `path`, which may hold what an earlier try has fetched; it is synced to the disk. Every byte is checked, and the digest
   * of the whole where it is known. Throws
   * `s3_object_missing`, `s3_object_invalid`, `s3_unreachable`, `build_failed` for a full disk.
   */
  async fetch(
    stored: StoredFile,
    path: string,
    { signal, progress }: { readonly signal: AbortSignal; readonly progress?: Progress },
  ): Promise<void> {
    const placed = placedPieces(stored.pieces);
    const there = await matchingPieces(path, stored.pieces, signal);
    try {
      await using file = await open(path, there === null ? "wx" : "r+", 0o600);
      await file.truncate(stored.size);
      const isWhole = await this.#fetchPieces(stored, { path, file, there, placed }, { signal, progress });
      if (!isWhole) await this.#mend(stored, { path, file, placed }, signal);
    } catch (error) {
      const told = diskError(error);
      // what is there already is worth less than the room that it takes
      if (isDiskError(told)) await rm(path, { force: true });
      throw told;
    }
  }

  /**
   * Whether the file is as it must be. The pieces of one object are compared all together, while they come and by another thread: to compare
   * each besides would take as long again.
   */
  async #fetchPieces(
    stored: StoredFile,
    { path, file, there, placed }: FetchedFile & { readonly there: ReadonlySet<number> | null },
    { signal, progress }: { readonly signal: AbortSignal; readonly progress: Progress | undefined },
  ): Promise<boolean> {
    const { sha256 } = stored;
    const within = this.#within(stored);
    await using digest =
      sha256 === null
        ? null
        : new GrowingDigest(
            path,
            placed.map(({ position, size }) => position + size),
          );
    await inParallel(placed, parallel, async (piece) => {
      if (there?.has(piece.index) !== true) {
        const { position } = piece;
        await this.#blobs.fetch(piece, { file, position, ...within, unchecked: "within" in within }, signal);
      }
      digest?.add(piece.index);
      progress?.(piece.size);
    });
    const [found = null] = await Promise.all([digest?.end(), file.sync()]);
    return found === sha256;
  }

  /** Fetches those pieces anew that are not as they must be. Throws `s3_object_invalid` where that does not help. */
  async #mend(stored: StoredFile, { path, file, placed }: FetchedFile, signal: AbortSignal): Promise<void> {
    const within = this.#within(stored);
    const right = await matchingPieces(path, stored.pieces, signal);
    for (const piece of placed)
      if (right?.has(piece.index) !== true)
        await this.#blobs.fetch(piece, { file, position: piece.position, ...within }, signal);
    await file.sync();
    const found = await digestOf(path, stored.size, signal);
    if (found === stored.sha256) return;
    await rm(path, { force: true });
    const what = `its sha-256 is ${found}, needed is ${stored.sha256}`;
    const key = this.wholeKey(stored);
    if (key !== null) throw invalidObject(key, what);
    throw new SquashError("s3_object_invalid", `Cannot use what the bucket has sent: ${what}`);
  }

  #within(stored: StoredFile): { readonly within: { readonly key: string } } | Record<string, never> {
    const key = this.wholeKey(stored);
    return key === null ? {} : { within: { key } };
  }

  async #sendPieces(path: string, cut: Cut, options: SendOptions): Promise<Sent> {
    const { signal, progress } = options;
    await using file = await open(path, "r");
    const pieces: Piece[] = [];
    let sentBytes = 0;
    const source = new PieceStream(piecesOf({ path, cut }, signal), pieces);
    const buffers = new PieceBuffers();
    await inParallel(source, parallel, async (piece) => {
      const send = (buffer: Buffer): Promise<number> =>
        this.#blobs.keep(piece, () => readPiece(file, piece, { path, buffer }), options);
      const sent = await this.#sending.run(() => buffers.use(piece.size, send), signal);
      sentBytes += sent; // in one step, since others add to it meanwhile
      progress?.(piece.size);
    });
    const { size, sha256 } = source.end;
    return { file: { size, sha256, stored: "pieces", pieces }, sentBytes };
  }

  async #sendWhole(path: string, sha256: string, options: SendOptions): Promise<Sent> {
    const { signal, progress, renewed = null } = options;
    await using file = await open(path, "r");
    const { size } = await file.stat();
    if (size > maxParts * maxPieceBytes) {
      const sent = await this.#sendPieces(path, "even", options);
      refuseOther(path, sent.file.sha256, sha256);
      return sent;
    }
    const key = this.#blobs.keyOf(sha256);
    const isThere = await this.#blobs.isKept(sha256, size, options);
    const upload = isThere || size <= maxPieceBytes ? null : await this.#openUpload(key, sha256, signal);
    const pieces: Piece[] = [];
    let sentBytes = 0;
    const source = new PieceStream(piecesOf({ path, cut: "even" }, signal), pieces);
    const buffers = new PieceBuffers();
    await inParallel(source, parallel, async (piece) => {
      if (upload !== null) {
        const send = (buffer: Buffer): Promise<number> =>
          upload.send(piece, () => readPiece(file, piece, { path, buffer }), signal);
        const sent = await this.#sending.run(() => buffers.use(piece.size, send), signal);
        sentBytes += sent;
      }
      progress?.(piece.size);
    });
    if (source.end.sha256 !== sha256) await upload?.abandon(signal);
    refuseOther(path, source.end.sha256, sha256);
    if (upload !== null) await upload.end({ pieces, size: renewed === null ? size : null }, signal);
    else if (!isThere && size > 0) {
      const [only] = pieces;
      if (only !== undefined)
        sentBytes += await buffers.use(only.size, (buffer) =>
          this.#blobs.keep(only, () => readPiece(file, { ...only, position: 0 }, { path, buffer }), options),
        );
    }
    renewed?.add(sha256);
    return { file: { size, sha256, stored: "whole", pieces }, sentBytes };
  }

  async #openUpload(key: string, sha256: string, signal: AbortSignal): Promise<Upload> {
    const upload = new Upload(this.#bucket, { key, sha256, notes: join(this.#folder, `${sha256}.upload`) });
    await upload.open(signal);
    return upload;
  }
}

/** An object that is sent in parts. What has arrived is noted, so that it is not sent again after a crash. */
class Upload {
  readonly #bucket: Bucket;
  readonly #key: string;
  readonly #sha256: string;
  readonly #notes: string;
  readonly #parts = new Map<number, NotedPart>();
  #id = "";
  #writing: Promise<void> = Promise.resolve();

  constructor(bucket: Bucket, options: { readonly key: string; readonly sha256: string; readonly notes: string }) {
    this.#bucket = bucket;
    this.#key = options.key;
    this.#sha256 = options.sha256;
    this.#notes = options.notes;
  }

  async open(signal: AbortSignal): Promise<void> {
    const noted = parseNotes(await readFile(this.#notes, "utf8").catch(() => ""));
    if (noted?.key === this.#key) {
      this.#id = noted.id;
      for (const part of noted.parts) this.#parts.set(part.number, part);
      return;
    }
    await this.#begin(signal);
  }

  async send(piece: PlacedPiece, read: () => Promise<Buffer>, signal: AbortSignal): Promise<number> {
    const number = piece.index + 1;
    const { sha256 } = piece;
    if (this.#parts.get(number)?.sha256 === sha256) return 0;
    const body = await read();
    const part = { key: this.#key, upload: this.#id, number };
    const sent = await this.#bucket.sendPart(part, body, { sha256, signal });
    if (sent === null) throw await this.#forgotten();
    this.#parts.set(number, { ...sent, sha256 });
    await this.#note();
    return piece.size;
  }

  /** `size` is that of all the pieces; null where an object of that size may be another one. */
  async end(
    { pieces, size }: { readonly pieces: readonly Piece[]; readonly size: number | null },
    signal: AbortSignal,
  ): Promise<void> {
    const parts = pieces.map((_, index) => this.#parts.get(index + 1)).filter((part) => part !== undefined);
    const isThere = await this.#bucket.endUpload(this.#key, { upload: this.#id, parts, size }, signal);
    if (!isThere) throw await this.#forgotten();
    await rm(this.#notes, { force: true });
  }

  async abandon(signal: AbortSignal): Promise<void> {
    await rm(this.#notes, { force: true });
    await this.#bucket.abandonUpload(this.#key, this.#id, signal);
  }

  async #begin(signal: AbortSignal): Promise<void> {
    this.#id = await this.#bucket.beginUpload(this.#key, { sha256: this.#sha256 }, signal);
    await mkdir(dirname(this.#notes), { recursive: true, mode: 0o700 });
    await this.#note();
  }

  /** The store has dropped what had arrived; the next try begins anew. */
  async #forgotten(): Promise<SquashError> {
    await rm(this.#notes, { force: true });
    return new SquashError("s3_unreachable", `Cannot send "${this.#key}": the store has dropped its parts; try again`);
  }

  #note(): Promise<void> {
    const text = `${JSON.stringify({ key: this.#key, id: this.#id, parts: [...this.#parts.values()] })}\n`;
    this.#writing = this.#writing.then(() => writeAtomically(this.#notes, text, { durable: false }));
    return this.#writing;
  }
}

/** Pieces with their places; keeps them all in `pieces`, and the end. */
class PieceStream implements AsyncIterable<PlacedPiece> {
  readonly #source: ReturnType<typeof piecesOf>;
  readonly #pieces: Piece[];
  #end: { readonly sha256: string | null; readonly size: number } | null = null;

  constructor(source: ReturnType<typeof piecesOf>, pieces: Piece[]) {
    this.#source = source;
    this.#pieces = pieces;
  }

  /** Once all pieces were taken. */
  get end(): { readonly sha256: string | null; readonly size: number } {
    if (this.#end === null) throw new Error("there are pieces left");
    return this.#end;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<PlacedPiece> {
    let position = 0;
    try {
      for (let step = await this.#source.next(); ; step = await this.#source.next()) {
        if (step.done === true) {
          this.#end = step.value;
          return;
        }
        yield { ...step.value, index: this.#pieces.push(step.value) - 1, position };
        position += step.value.size;
      }
    } finally {
      await this.#source.return({ sha256: null, size: 0 });
    }
  }
}

function placedPieces(pieces: readonly Piece[]): PlacedPiece[] {
  let position = 0;
  return pieces.map((piece, index) => {
    const placed = { ...piece, index, position };
    position += piece.size;
    return placed;
  });
}

async function readPiece(
  file: FileHandle,
  { size, position }: { readonly size: number; readonly position: number },
  { path, buffer }: { readonly path: string; readonly buffer: Buffer },
): Promise<Buffer> {
  for (let done = 0; done < size;) {
    const { bytesRead } = await file.read(buffer, done, size - done, position + done);
    if (bytesRead === 0)
      throw new SquashError("s3_failed", `Cannot send "${path}": it became shorter while it was read`);
    done += bytesRead;
  }
  return buffer;
}

function refuseOther(path: string, found: string | null, wanted: string): void {
  if (found === wanted) return;
  throw new SquashError(
    "s3_failed",
    `Cannot send "${path}": its sha-256 is ${found}, it must be ${wanted}; repair the file`,
  );
}

function parseNotes(text: string): { key: string; id: string; parts: NotedPart[] } | null {
  try {
    const { key, id, parts } = JSON.parse(text) as { key?: unknown; id?: unknown; parts?: unknown };
    if (typeof key !== "string" || typeof id !== "string" || !Array.isArray(parts)) return null;
    return { key, id, parts: parts as NotedPart[] };
  } catch {
    return null; // none, or cut off
  }
}
