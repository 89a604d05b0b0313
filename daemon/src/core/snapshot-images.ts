import type { Layers } from "./layers.js";
import type { SandboxStore } from "./ports.js";
import type { Sandbox } from "./sandbox.js";
import { snapshotLayer } from "./snapshot-layers.js";

type ImageStore = Pick<SandboxStore, "listSnapshotImages" | "removeSnapshotImage" | "snapshotFacts" | "snapshotImage">;
type ImageLayers = Pick<Layers, "drop" | "keyOf">;

/**
 * Images of snapshots, which stacks and histories of several sandboxes share. An image goes when nothing names it any more; what names it is
 * asked anew each time, so that no count can go wrong.
 */
export class SnapshotImages {
  readonly #store: ImageStore;
  readonly #layers: ImageLayers;
  readonly #sandboxes: () => readonly Sandbox[];
  readonly #held = new Map<string, number>();
  readonly #going = new Set<string>();
  #inDoubt = false;

  constructor(store: ImageStore, layers: ImageLayers, sandboxes: () => readonly Sandbox[]) {
    this.#store = store;
    this.#layers = layers;
    this.#sandboxes = sandboxes;
  }

  /** Keeps images that nothing names yet, such as those of a fork under way, while `work` runs. What then has no other user goes. */
  async hold<T>(images: readonly string[], work: () => Promise<T>): Promise<T> {
    for (const image of images) this.#held.set(image, (this.#held.get(image) ?? 0) + 1);
    try {
      return await work();
    } finally {
      for (const image of images) {
        const left = (this.#held.get(image) ?? 1) - 1;
        if (left === 0) this.#held.delete(image);
        else this.#held.set(image, left);
      }
      // what named them may have gone meanwhile; where this fails they are found by the next collection
      await this.release(images).catch(() => undefined);
    }
  }

  /** Says that a sandbox's files cannot be read: what it names is not known, so that nothing is removed from now on. */
  doubt(): void {
    this.#inDoubt = true;
  }

  /** Removes those of `images` that nothing names. */
  async release(images: readonly string[]): Promise<void> {
    if (this.#inDoubt) return;
    const used = this.#used();
    const unused = [...new Set(images)].filter((image) => !used.has(image) && !this.#going.has(image));
    for (const image of unused) this.#going.add(image);
    try {
      for (const image of unused) await this.#remove(image);
    } finally {
      for (const image of unused) this.#going.delete(image);
    }
  }

  /** All images on the disk that nothing names, and that nobody removes already. */
  async unused(): Promise<string[]> {
    if (this.#inDoubt) return [];
    const busy = this.#used(); // what loses its last user while the disk is read goes by itself
    for (const image of this.#going) busy.add(image);
    const listed = await this.#store.listSnapshotImages();
    const used = this.#used();
    return listed.filter((image) => !used.has(image) && !busy.has(image)).toSorted();
  }

  /** The same with the bytes that they take. */
  async findUnused(): Promise<{ images: string[]; bytes: number }> {
    const images = await this.unused();
    const bytes = images.reduce((sum, image) => sum + (this.#store.snapshotFacts(image)?.allocatedBytes ?? 0), 0);
    return { images, bytes };
  }

  /** Removes what `unused` finds. Returns it and the bytes that it took. */
  async collect(): Promise<{ images: string[]; bytes: number }> {
    const images = await this.unused();
    let bytes = 0;
    for (const image of images) bytes += await this.#remove(image);
    return { images, bytes };
  }

  /** Nobody mounts it again; a mount that stayed would keep its blocks, and be one more in every cell that is made. */
  async #remove(image: string): Promise<number> {
    await this.#layers.drop(this.#layers.keyOf(snapshotLayer(this.#store, image)));
    return this.#store.removeSnapshotImage(image);
  }

  #used(): Set<string> {
    const used = new Set(this.#held.keys());
    for (const { record, draft, snapshots } of this.#sandboxes()) {
      for (const image of [...(record?.snapshots ?? []), ...(draft?.plan?.snapshots ?? [])]) used.add(image);
      for (const { images } of snapshots) for (const image of images) used.add(image);
    }
    return used;
  }
}
