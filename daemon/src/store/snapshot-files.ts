import { mkdir, open, readFile, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { SnapshotRecord, TakenOutput } from "../core/ports.js";
import { writeAtomically } from "./atomic-file.js";

const folder = "snapshots";
const outputChunkBytes = 262_144;
const imageName = /^([0-9a-f]{32})\.erofs$/;

/** Images of snapshots below `<data dir>/snapshots`, which stacks of several sandboxes may share, and each sandbox's list of its snapshots. */
export class SnapshotFiles {
  readonly #dataDir: string;

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
  }

  /** Relative to the data directory. */
  image(image: string): string {
    return `${folder}/${image}.erofs`;
  }

  async listImages(): Promise<string[]> {
    const directory = join(this.#dataDir, folder);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return (await readdir(directory)).flatMap((name) => imageName.exec(name)?.[1] ?? []);
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
    const path = join(this.#dataDir, this.image(image));
    const blocks = await stat(path).then(
      (found) => found.blocks,
      () => 0,
    );
    await rm(path, { force: true });
    return blocks * 512;
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
