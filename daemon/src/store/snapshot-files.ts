import { mkdir, readFile, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { ownerOfImage } from "../core/image-ids.js";
import type { SnapshotRecord } from "../core/ports.js";
import { writeAtomically } from "./atomic-file.js";

const folder = "snapshots";
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
  readonly #pool: SubvolumePool | null;

  constructor(dataDir: string, pool: SubvolumePool | null) {
    this.#dataDir = dataDir;
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

  /** Returns the bytes that it took on the disk. */
  async removeImage(image: string): Promise<number> {
    if (ownerOfImage(image) !== null) return this.#removeSubvolume(`s/${image}`);
    const path = join(this.#dataDir, this.image(image));
    const blocks = await stat(path).then(
      (found) => found.blocks,
      () => 0,
    );
    await rm(path, { force: true });
    return blocks * 512;
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
