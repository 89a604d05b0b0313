import { constants, lstatSync } from "node:fs";
import { mkdir, open, readFile, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { ownerOfImage } from "../core/image-ids.js";
import type { SnapshotImageFacts, SnapshotRecord, TakenOutput } from "../core/ports.js";
import { writeAtomically } from "./atomic-file.js";
import { SnapshotDigests } from "./snapshot-digests.js";

const folder = "snapshots";
const outputChunkBytes = 262_144;
const imageName = /^([0-9a-f]{32})\.erofs$/;

/** What is done with subvolumes of the pool; names are relative to that. */
export interface SubvolumePool {
  /** Idempotent. */
  remove(name: string): Promise<void>;
  /** Bytes that its files take. */
  bytes(name: string): Promise<number>;
}

/** Images of snapshots below `<data dir>/snapshots` and `<data dir>/pool/s`, which stacks of several sandboxes may share, and each sandbox's list of its snapshots. */
export class SnapshotFiles {
  readonly #dataDir: string;
  readonly #digests: SnapshotDigests;
  readonly #pool: SubvolumePool | null;

  /** `boot` names this boot of the machine. */
  constructor(dataDir: string, { boot, pool }: { readonly boot: string; readonly pool: SubvolumePool | null }) {
    this.#dataDir = dataDir;
    this.#digests = new SnapshotDigests(boot);
    this.#pool = pool;
  }

  /** Relative to the data directory. */
  image(image: string): string {
    return ownerOfImage(image) === null ? `${folder}/${image}.erofs` : `pool/s/${image}`;
  }

  async listImages(): Promise<string[]> {
    const directory = join(this.#dataDir, folder);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const files = (await readdir(directory)).flatMap((name) => imageName.exec(name)?.[1] ?? []);
    if (this.#pool === null) return files;
    const subvolumes = await readdir(join(this.#dataDir, "pool/s"));
    return [...files, ...subvolumes.filter((name) => ownerOfImage(name) !== null)];
  }

  /** Opens a file under an image's name, and removes the name. */
  async take(image: string): Promise<TakenOutput> {
    const path = join(this.#dataDir, this.image(image));
    const file = await open(path, "r");
    await rm(path, { force: true });
    return {
      chunks: () =>
        file.createReadStream({ start: 0, autoClose: false, highWaterMark: outputChunkBytes }) as AsyncIterable<Buffer>,
      close: () => file.close(),
    };
  }

  /** Returns the bytes that it took on the disk. */
  async removeImage(image: string): Promise<number> {
    if (ownerOfImage(image) !== null) return this.#removeSubvolume(`s/${image}`);
    const path = this.#path(image);
    const blocks = await stat(path).then(
      (found) => found.blocks,
      () => 0,
    );
    await this.#digests.remove(path);
    await rm(path, { force: true });
    return blocks * 512;
  }

  /** Waits for the disk only when the kernel does not know the files. What a subvolume takes is not known without asking. */
  facts(image: string): SnapshotImageFacts | null {
    const path = this.#path(image);
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found === undefined) return null;
    if (ownerOfImage(image) !== null) return { bytes: 0, allocatedBytes: 0, sha256: null };
    return { bytes: found.size, allocatedBytes: found.blocks * 512, sha256: this.#digests.known(path) };
  }

  /** The file system of the pool has checksums of its own. */
  async check(image: string): Promise<void> {
    if (ownerOfImage(image) === null) await this.#digests.check(this.#path(image));
  }

  /** Of a subvolume the kernel has seen to that. Throws errors of the disk. */
  async sync(image: string): Promise<void> {
    if (ownerOfImage(image) !== null) return;
    await using file = await open(this.#path(image), constants.O_RDONLY | constants.O_NOFOLLOW);
    await file.datasync();
  }

  async seal(image: string, signal: AbortSignal): Promise<void> {
    if (ownerOfImage(image) === null) await this.#digests.seal(this.#path(image), signal);
  }

  /** Its bytes, though others may share them. */
  async #removeSubvolume(name: string): Promise<number> {
    if (this.#pool === null) return 0;
    const bytes = await this.#pool.bytes(name).catch(() => 0); // it may be gone
    await this.#pool.remove(name);
    return bytes;
  }

  async write(path: string, snapshots: readonly SnapshotRecord[]): Promise<void> {
    const content = `${JSON.stringify({ version: 1, snapshots }, null, 2)}\n`;
    await writeAtomically(path, content, { durable: true });
  }

  /** None where there is no list. Throws where there is one that cannot be read: sweeping would lose what it names. */
  async read(path: string): Promise<SnapshotRecord[]> {
    const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
      return null;
    });
    if (text === null) return [];
    const value = parse(text) as { readonly version?: unknown; readonly snapshots?: unknown } | null;
    const list = value?.version === 1 && Array.isArray(value.snapshots) ? (value.snapshots as SnapshotRecord[]) : null;
    if (list?.every(isSnapshot) === true) return list;
    throw new SquashError("internal", `Cannot read "${path}": it is no list of snapshots; repair it`);
  }

  #path(image: string): string {
    return join(this.#dataDir, this.image(image));
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function isSnapshot({ label, images, layers }: Partial<SnapshotRecord>): boolean {
  return typeof label === "string" && Array.isArray(images) && images.length > 0 && Array.isArray(layers);
}
