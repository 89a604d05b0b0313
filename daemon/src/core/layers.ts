import { SquashError, isSquashError } from "@squash/sdk/errors";
import { KeyedMutex } from "./keyed-mutex.js";
import type { Kernel, LayerImage } from "./ports.js";

type LayerKernel = Pick<Kernel, "mountLayer" | "unmountLayer" | "mountedLayers">;

interface IdleLayer {
  /** will unmount it */
  readonly timer: NodeJS.Timeout;
  readonly isMounted: boolean;
}

/**
 * Mounted modules: each image once for the whole host, for as long as a stack uses it and `lingerMs` longer. What was read of an image goes
 * with its mount, so that a sandbox which comes a moment after the last one would have to read and unpack all of it again.
 */
export class Layers {
  readonly #kernel: LayerKernel;
  readonly #lingerMs: number;
  readonly #users = new Map<string, number>();
  /** layers that nobody uses and that are mounted still */
  readonly #idle = new Map<string, IdleLayer>();
  readonly #mutex = new KeyedMutex();

  /** With a `lingerMs` of 0 the last user's release unmounts, and fails when that does. */
  constructor(kernel: LayerKernel, options: { readonly lingerMs: number }) {
    this.#kernel = kernel;
    this.#lingerMs = options.lingerMs;
  }

  get mounted(): number {
    return this.#users.size + this.#idle.size;
  }

  /** Mounts what is not mounted yet. Returns the keys in the order of `images`; all or nothing. */
  async acquire(images: readonly LayerImage[]): Promise<string[]> {
    const taken: string[] = [];
    try {
      for (const image of images) taken.push(await this.#acquireOne(image));
      return taken;
    } catch (error) {
      await this.release(taken);
      throw error;
    }
  }

  /** Gives layers back. */
  async release(keys: readonly string[]): Promise<void> {
    for (const key of keys) await this.#mutex.run(key, () => this.#releaseOne(key));
  }

  /** Unmounts a layer at once that nobody uses, and nobody will any more. Where that fails it is tried again later. */
  async drop(key: string): Promise<void> {
    await this.#mutex.run(key, async () => {
      const idle = this.#idle.get(key);
      if (idle !== undefined) await this.#expire(key, idle.timer);
    });
  }

  /** The key under which an image is, or would be, mounted. */
  keyOf(image: LayerImage): string {
    return layerKey(image);
  }

  /** Counts a user of layers that an earlier squashd mounted. */
  adopt(keys: readonly string[]): void {
    for (const key of keys) this.#users.set(key, (this.#users.get(key) ?? 0) + 1);
  }

  /** Unmounts what nobody uses. Returns the keys. */
  async sweep(): Promise<string[]> {
    const unused = (await this.#kernel.mountedLayers()).filter((key) => !this.#users.has(key));
    for (const key of unused) await this.#mutex.run(key, () => this.#unmount(key));
    return unused;
  }

  #acquireOne(image: LayerImage): Promise<string> {
    const key = layerKey(image);
    const users = this.#users.get(key);
    if (users !== undefined && users > 0) {
      this.#users.set(key, users + 1);
      return Promise.resolve(key);
    }
    return this.#mutex.run(key, async () => {
      const count = this.#users.get(key) ?? 0;
      if (count === 0 && !(await this.#wake(key))) await this.#mount(key, image);
      this.#users.set(key, (this.#users.get(key) ?? 0) + 1);
      return key;
    });
  }

  async #mount(key: string, image: LayerImage): Promise<void> {
    try {
      await this.#kernel.mountLayer(key, image.image, image.format);
    } catch (cause) {
      // where sq-host died before it answered, it may be mounted
      if (isSquashError(cause) && cause.code === "kernel" && cause.details["errno"] === undefined)
        this.#retire(key, false);
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
    if (this.#lingerMs === 0) await this.#unmount(key);
    else this.#retire(key, users === 1);
  }

  /** Lets a layer without users be unmounted later. */
  #retire(key: string, isMounted: boolean): void {
    const timer = setTimeout(() => void this.#mutex.run(key, () => this.#expire(key, timer)), this.#lingerMs);
    timer.unref();
    this.#idle.set(key, { timer, isMounted });
  }

  async #expire(key: string, timer: NodeJS.Timeout): Promise<void> {
    if (this.#idle.get(key)?.timer !== timer) return; // taken meanwhile
    try {
      await this.#unmount(key);
    } catch {
      this.#retire(key, false); // sq-host may be on its way back; nobody waits for this
    }
  }

  /** Takes a layer out of those that nobody uses. Returns whether it is mounted. */
  async #wake(key: string): Promise<boolean> {
    const idle = this.#idle.get(key);
    if (idle === undefined) return false;
    if (!idle.isMounted) await this.#kernel.unmountLayer(key); // an unmount failed, so that nobody knows
    clearTimeout(idle.timer);
    this.#idle.delete(key);
    return idle.isMounted;
  }

  async #unmount(key: string): Promise<void> {
    if ((this.#users.get(key) ?? 0) > 0) return; // taken meanwhile
    await this.#kernel.unmountLayer(key);
    clearTimeout(this.#idle.get(key)?.timer);
    this.#idle.delete(key);
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

function layerKey(image: LayerImage): string {
  return `${image.name}@${image.identity}.${image.format}`;
}
