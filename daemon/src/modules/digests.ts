import { createHash } from "node:crypto";
import { constants, lstatSync, readFileSync, type BigIntStats } from "node:fs";
import { lstat, mkdir, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { SquashError } from "@squash/sdk/errors";
import { writeAtomically } from "../store/atomic-file.js";

/** small, so that what else there is to do comes in between */
const chunkBytes = 65_536;

interface Known {
  readonly identity: string;
  readonly sha256: string;
}

/**
 * The sha-256 of each image, taken once for each identity of its file (device, inode, size, times), and kept in a file, so that a start does
 * not read all images again. Who can write that file can write the images as well.
 */
export class Digests {
  readonly #directory: string;
  readonly #cachePath: string;
  readonly #known: Map<string, Known>;
  readonly #running = new Map<string, Promise<string>>();
  #writing: Promise<void> = Promise.resolve();

  constructor(directory: string, cachePath: string) {
    this.#directory = directory;
    this.#cachePath = cachePath;
    this.#known = readCache(cachePath);
  }

  /** The digest of a file as it is now, where it is known already. */
  known(file: string, stat: BigIntStats): string | undefined {
    const known = this.#known.get(file);
    return known?.identity === identityOf(stat) ? known.sha256 : undefined;
  }

  /** Reads the file where that has to be; who asks meanwhile waits for the same reading. Throws `module_invalid` when it changes while it is read. */
  async of(file: string, stat: BigIntStats): Promise<string> {
    const known = this.known(file, stat);
    if (known !== undefined) return known;
    const key = `${file} ${identityOf(stat)}`;
    const running = this.#running.get(key) ?? this.#hash(file, stat).finally(() => this.#running.delete(key));
    this.#running.set(key, running);
    return running;
  }

  /** Takes the word of who has just written a file for its digest. */
  async record(file: string, sha256: string): Promise<void> {
    const stat = await lstat(join(this.#directory, file), { bigint: true });
    this.#known.set(file, { identity: identityOf(stat), sha256 });
    await this.#save();
  }

  async #hash(file: string, stat: BigIntStats): Promise<string> {
    await using handle = await open(join(this.#directory, file), constants.O_RDONLY | constants.O_NOFOLLOW);
    const hash = createHash("sha256");
    // the handle is closed by its owner
    await pipeline(handle.createReadStream({ autoClose: false, highWaterMark: chunkBytes }), hash);
    const [before, after] = [identityOf(stat), identityOf(await handle.stat({ bigint: true }))];
    if (before !== after) {
      throw new SquashError(
        "module_invalid",
        `Cannot check "modules/${file}": it changed while it was read; try again`,
      );
    }
    const sha256 = hash.digest("hex");
    this.#known.set(file, { identity: after, sha256 });
    await this.#save();
    return sha256;
  }

  /** A cache that cannot be written costs time at the next start, and nothing else. */
  #save(): Promise<void> {
    this.#writing = this.#writing.then(async () => {
      const isThere = (file: string): boolean =>
        lstatSync(join(this.#directory, file), { throwIfNoEntry: false }) !== undefined;
      for (const file of this.#known.keys()) if (!isThere(file)) this.#known.delete(file);
      const text = `${JSON.stringify({ version: 1, files: Object.fromEntries(this.#known) }, null, 2)}\n`;
      await mkdir(dirname(this.#cachePath), { recursive: true, mode: 0o700 });
      await writeAtomically(this.#cachePath, text, { durable: false });
    }, undefined);
    this.#writing = this.#writing.catch(() => undefined);
    return this.#writing;
  }
}

function identityOf(stat: BigIntStats): string {
  return [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join("-");
}

/** Whatever is no cache of this version counts as none. */
function readCache(path: string): Map<string, Known> {
  const known = new Map<string, Known>();
  try {
    const { version, files } = JSON.parse(readFileSync(path, "utf8")) as { version?: unknown; files?: unknown };
    if (version !== 1 || typeof files !== "object" || files === null) return known;
    for (const [file, value] of Object.entries(files)) {
      const { identity, sha256 } = (value ?? {}) as Partial<Known>;
      if (typeof identity === "string" && typeof sha256 === "string") known.set(file, { identity, sha256 });
    }
  } catch {
    // none yet, or damaged: it is made again
  }
  return known;
}
