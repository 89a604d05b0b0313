import { createHash } from "node:crypto";
import { lstat, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { KeyedMutex } from "../../core/keyed-mutex.js";
import { randomHex } from "../../core/random.js";
import type { Kernel } from "../../core/ports.js";
import type { TrustImage, TrustImages, TrustWish } from "../../core/secrets/trust.js";
import { erofsImage } from "./erofs-image.js";
import { lookAtModules } from "./module-reader.js";
import { ModuleView } from "./module-view.js";
import { trustTree } from "./trust-tree.js";

/** changes with what images are made of, besides wishes */
const generation = 2;
const folder = "trust";
const imageName = /^([0-9a-f]{32})\.erofs$/;
/** for one image; it is made in a fifth of a second */
const makingMs = 30_000;
/** images on the disk from which on those that nobody uses go */
const manyImages = 64;

interface TrustImageParts {
  readonly kernel: Pick<Kernel, "compare" | "mountedLayers">;
  readonly dataDir: string;
  /** how long making one may take; @default 30 s */
  readonly makingMs?: number;
}

/**
 * Images of trust in `<data>/trust`, each made once for a certificate authority, a stack of modules and a text, while others that want the same
 * one wait. What nobody uses is a cache: it may go at any time.
 */
export class TrustImageFolder implements TrustImages {
  readonly #parts: TrustImageParts;
  /** one at a time: captures and comparisons of others are to find a process free */
  readonly #mutex = new KeyedMutex();
  readonly #making = new Map<string, Promise<string>>();
  /** path inside of the bundle, by key, of images that this process has made */
  readonly #bundles = new Map<string, string>();
  readonly #using = new Map<string, number>();

  constructor(parts: TrustImageParts) {
    this.#parts = parts;
  }

  async use<T>(wish: TrustWish, use: (image: TrustImage) => Promise<T>): Promise<T> {
    const key = keyOf(wish);
    this.#using.set(key, (this.#using.get(key) ?? 0) + 1);
    try {
      const bundle = await this.#findOnce(key, wish);
      const layer = { name: `trust-${key}`, image: `${folder}/${key}.erofs`, format: "erofs", identity: "0" } as const;
      return await use({ layer, root: { ca: wish.authority.fingerprint, bundle } });
    } finally {
      const left = (this.#using.get(key) ?? 1) - 1;
      if (left === 0) this.#using.delete(key);
      else this.#using.set(key, left);
    }
  }

  /** Removes what no layer is mounted of, and what a crash has left, before anything is made. Returns the names. */
  async sweep(): Promise<string[]> {
    const { files } = await this.collect({ dryRun: false });
    return files;
  }

  /** Removes images that nobody uses. Returns their paths, relative to the data directory, and the bytes that they take. */
  async collect({ dryRun }: { readonly dryRun: boolean }): Promise<{ files: string[]; bytes: number }> {
    const directory = join(this.#parts.dataDir, folder);
    const names = await readdir(directory).catch(onlyMissing([]));
    if (names.length === 0) return { files: [], bytes: 0 };
    const mounted = await this.#parts.kernel.mountedLayers();
    const files: string[] = [];
    let bytes = 0;
    for (const name of names.toSorted()) {
      const key = imageName.exec(name)?.[1];
      // what is no image is what one is being made of, or what a crash has left of that
      const isUsed = key === undefined ? this.#using.size > 0 : this.#isUsed(key, mounted);
      if (isUsed) continue;
      const stat = await lstat(join(directory, name)).catch(onlyMissing(null));
      bytes += (stat?.blocks ?? 0) * 512;
      files.push(`${folder}/${name}`);
      if (dryRun) continue;
      if (key !== undefined) this.#bundles.delete(key);
      await rm(join(directory, name), { force: true });
    }
    return { files, bytes };
  }

  #isUsed(key: string, mounted: readonly string[]): boolean {
    return this.#using.has(key) || mounted.some((layer) => layer.startsWith(`trust-${key}@`));
  }

  #findOnce(key: string, wish: TrustWish): Promise<string> {
    const making = this.#making.get(key) ?? this.#find(key, wish).finally(() => this.#making.delete(key));
    this.#making.set(key, making);
    return making;
  }

  /** Returns the path inside of the image's bundle. */
  async #find(key: string, wish: TrustWish): Promise<string> {
    const { dataDir } = this.#parts;
    const known = this.#bundles.get(key);
    const path = join(dataDir, folder, `${key}.erofs`);
    if (known !== undefined && (await lstat(path).catch(onlyMissing(null))) !== null) return known;
    await mkdir(join(dataDir, folder), { recursive: true, mode: 0o700 });
    const signal = AbortSignal.timeout(this.#parts.makingMs ?? makingMs);
    const bundle = await this.#mutex.run("making", () => this.#make(path, wish, signal));
    this.#bundles.set(key, bundle);
    if (this.#bundles.size > manyImages) await this.collect({ dryRun: false });
    return bundle;
  }

  async #make(path: string, wish: TrustWish, signal: AbortSignal): Promise<string> {
    const { kernel, dataDir } = this.#parts;
    const view = new ModuleView((at, { withContent }) =>
      lookAtModules({ kernel, dataDir, folder }, wish.modules, { path: at, withContent }, signal),
    );
    const { authority, javaHome, profile } = wish;
    const { root, bundle } = await trustTree(view, { certificatePem: authority.certificatePem, javaHome, profile });
    await writeWhole(path, erofsImage(root));
    return bundle;
  }
}

/** What makes an image another one. The keys of layers change with their content. */
function keyOf({ authority, modules, javaHome, profile }: TrustWish): string {
  const facts = [generation, authority.fingerprint, authority.certificatePem, modules, javaHome, profile("/")];
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex").slice(0, 32);
}

/** There is all of it or nothing, also after a power failure. */
async function writeWhole(path: string, content: Buffer): Promise<void> {
  const draft = `${path}.tmp-${randomHex(6)}`;
  try {
    await using file = await open(draft, "wx", 0o600);
    await file.writeFile(content);
    await file.sync();
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}

function onlyMissing<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === "ENOENT") return value;
    throw error;
  };
}
