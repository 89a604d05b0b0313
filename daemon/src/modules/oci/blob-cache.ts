import { createHash, randomBytes, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { lstat, mkdir, open, readdir, rename, rm, utimes, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { Descriptor } from "./image-schema.js";
import type { FileRange } from "./tar-reader.js";

const dayMs = 24 * 60 * 60_000;
/** what somebody used so lately may be in use */
const inUseMs = 60 * 60_000;

/** Parts of images on this machine, by digest: `cache/oci/sha256/<hex>`, `<hex>.part` for the begin of one. */
export class BlobCache {
  readonly #directory: string;

  constructor(dataDir: string) {
    this.#directory = join(dataDir, "cache/oci/sha256");
  }

  /** The blob if it is here, whole and right; a damaged one is removed. */
  async find({ digest, size }: Descriptor): Promise<FileRange | null> {
    const path = this.#path(digest);
    const stat = await lstat(path).catch(onlyMissing);
    if (stat === null) return null;
    if (stat.isFile() && stat.size === size && (await sha256Of(path)) === digest) {
      const now = new Date();
      await utimes(path, now, now);
      return { path, offset: 0, size };
    }
    await rm(path, { force: true });
    return null;
  }

  /** A file for a blob that is not here, with what an earlier attempt has left of it. */
  async begin(descriptor: Descriptor): Promise<BlobDraft> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const path = this.#path(descriptor.digest);
    const draft = `${path}.part-${randomBytes(6).toString("hex")}`;
    // whoever renames it has it alone
    await rename(`${path}.part`, draft).catch(onlyMissing);
    return BlobDraft.open(draft, path, descriptor);
  }

  /** Removes what nobody used for long, then the longest unused until the rest is small enough. Returns the digests, or parts. */
  async prune(
    limits: { readonly maxAgeMs?: number; readonly maxBytes?: number } = {},
    now = Date.now(),
  ): Promise<string[]> {
    const names = (await this.unused(limits, now)).map(({ name }) => name);
    for (const name of names) await rm(join(this.#directory, name), { force: true });
    return names;
  }

  /** What `prune` would remove. */
  async unused(
    limits: { readonly maxAgeMs?: number; readonly maxBytes?: number } = {},
    now = Date.now(),
  ): Promise<{ readonly name: string; readonly size: number }[]> {
    const { maxAgeMs = 30 * dayMs, maxBytes = 10 * 1024 ** 3 } = limits;
    const names = (await readdir(this.#directory).catch(onlyMissing)) ?? [];
    const files = [];
    for (const name of names) {
      const stat = await lstat(join(this.#directory, name)).catch(onlyMissing);
      if (stat !== null) files.push({ name, size: stat.size, ageMs: now - stat.mtimeMs });
    }
    let kept = 0;
    const found: { readonly name: string; readonly size: number }[] = [];
    for (const { name, size, ageMs } of files.toSorted((a, b) => a.ageMs - b.ageMs)) {
      const isPart = name.includes(".part");
      kept += size;
      if (ageMs <= inUseMs || (ageMs <= (isPart ? Math.min(dayMs, maxAgeMs) : maxAgeMs) && kept <= maxBytes)) continue;
      kept -= size;
      found.push({ name, size });
    }
    return found;
  }

  #path(digest: string): string {
    return join(this.#directory, digest.slice("sha256:".length));
  }
}

/** A blob on its way into the cache; what is there of it is kept for a later attempt, unless it is thrown away. */
export class BlobDraft implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #draft: string;
  readonly #path: string;
  readonly #descriptor: Descriptor;
  #hash: Hash;
  #size: number;
  #end: "keep" | "publish" | "discard" = "keep";

  private constructor(file: FileHandle, paths: { draft: string; path: string }, of: Descriptor, had: [Hash, number]) {
    this.#file = file;
    this.#draft = paths.draft;
    this.#path = paths.path;
    this.#descriptor = of;
    [this.#hash, this.#size] = had;
  }

  static async open(draft: string, path: string, descriptor: Descriptor): Promise<BlobDraft> {
    const file = await open(draft, "a", 0o600);
    const hash = createHash("sha256");
    await pipeline(createReadStream(draft), hash, { end: false });
    const { size } = await file.stat();
    const blob = new BlobDraft(file, { draft, path }, descriptor, [hash, size]);
    if (size > descriptor.size) await blob.restart();
    return blob;
  }

  /** bytes that are there */
  get size(): number {
    return this.#size;
  }

  /** Begins anew. */
  async restart(): Promise<void> {
    await this.#file.truncate(0);
    this.#hash = createHash("sha256");
    this.#size = 0;
  }

  /** Appends. Throws `RangeError` when it would become larger than it should. */
  async write(chunk: Buffer): Promise<void> {
    if (this.#size + chunk.length > this.#descriptor.size) {
      this.#end = "discard";
      throw new RangeError(`is larger than ${this.#descriptor.size} bytes`);
    }
    await this.#file.writeFile(chunk);
    this.#hash.update(chunk);
    this.#size += chunk.length;
  }

  /** Takes it into the cache once it is disposed of. Throws `RangeError` for other bytes than it should have. */
  check(): FileRange {
    const found = `sha256:${this.#hash.copy().digest("hex")}`;
    this.#end = found === this.#descriptor.digest ? "publish" : "discard";
    if (this.#end === "discard") throw new RangeError(`has the digest ${found}, needed is ${this.#descriptor.digest}`);
    return { path: this.#path, offset: 0, size: this.#size };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    if (this.#end === "discard" || (this.#end === "keep" && this.#size === 0)) await rm(this.#draft, { force: true });
    if (this.#end === "publish") await rename(this.#draft, this.#path).catch(onlyMissing);
    else await rename(this.#draft, `${this.#path}.part`).catch(onlyMissing);
  }
}

/** `sha256:` and the digest of a file. */
async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return `sha256:${hash.digest("hex")}`;
}

function onlyMissing(error: NodeJS.ErrnoException): null {
  if (error.code === "ENOENT") return null;
  throw error;
}
