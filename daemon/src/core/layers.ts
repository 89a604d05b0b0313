import { SquashError, isSquashError } from "@squash/sdk/errors";
import { KeyedMutex } from "./keyed-mutex.js";
import type { Kernel, ModuleImage } from "./ports.js";

type LayerKernel = Pick<Kernel, "mountLayer" | "unmountLayer" | "mountedLayers">;

/** Mounted modules: each image once for the whole host, for as long as a stack uses it. */
export class Layers {
  readonly #kernel: LayerKernel;
  readonly #users = new Map<string, number>();
  readonly #mutex = new KeyedMutex();

  constructor(kernel: LayerKernel) {
    this.#kernel = kernel;
  }

  get mounted(): number {
    return this.#users.size;
  }

  /** Mounts what is not mounted yet. Returns the keys in the order of `images`; all or nothing. */
  async acquire(images: readonly ModuleImage[]): Promise<string[]> {
    const taken: string[] = [];
    try {
      for (const image of images) taken.push(await this.#acquireOne(image));
      return taken;
    } catch (error) {
      await this.release(taken);
      throw error;
    }
  }

  /** Gives layers back; the last user unmounts. */
  async release(keys: readonly string[]): Promise<void> {
    for (const key of keys) await this.#mutex.run(key, () => this.#releaseOne(key));
  }

  /** Counts a user of layers that an earlier squashd mounted. */
  adopt(keys: readonly string[]): void {
    for (const key of keys) this.#users.set(key, (this.#users.get(key) ?? 0) + 1);
  }

  /** Unmounts what nobody uses. Returns the keys. */
  async sweep(): Promise<string[]> {
    const unused = (await this.#kernel.mountedLayers()).filter((key) => !this.#users.has(key));
    for (const key of unused) await this.#kernel.unmountLayer(key);
    return unused;
  }

  #acquireOne(image: ModuleImage): Promise<string> {
    const key = layerKey(image);
    const users = this.#users.get(key);
    if (users !== undefined && users > 0) {
      this.#users.set(key, users + 1);
      return Promise.resolve(key);
    }
    return this.#mutex.run(key, async () => {
      const count = this.#users.get(key) ?? 0;
      if (count === 0) await this.#mount(key, image);
      this.#users.set(key, (this.#users.get(key) ?? 0) + 1);
      return key;
    });
  }

  async #mount(key: string, image: ModuleImage): Promise<void> {
    try {
      await this.#kernel.mountLayer(key, image.image, image.format);
    } catch (cause) {
      if (!isSquashError(cause) || !damageErrors.has(String(cause.details["errno"]))) throw cause;
      throw new SquashError(
        "module_invalid",
        `Cannot use module "${image.name}": its image is damaged, truncated, or of a kind that this kernel cannot mount (${cause.message})`,
        { cause, details: cause.details },
      );
    }
  }

  async #releaseOne(key: string): Promise<void> {
    const users = this.#users.get(key) ?? 0;
    if (users > 1) {
      this.#users.set(key, users - 1);
      return;
    }
    this.#users.delete(key);
    await this.#kernel.unmountLayer(key);
  }
}

/** What the kernel answers to images that are not what they should be. */
const damageErrors = new Set([
  "EINVAL",
  "EIO",
  "EUCLEAN",
  "EFSCORRUPTED",
  "ENOTBLK",
  "EBADMSG",
  "EOVERFLOW",
  "ENODEV",
  "EOPNOTSUPP",
  "ENOTSUP",
]);

function layerKey(image: ModuleImage): string {
  return `${image.name}@${image.identity}.${image.format}`;
}
