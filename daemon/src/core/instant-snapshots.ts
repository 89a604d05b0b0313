import { newImage } from "./image-ids.js";
import type { CapturedRoot, Kernel, SandboxRecord, SandboxStore } from "./ports.js";
import { snapshotLayer } from "./snapshot-layers.js";
import type { Layers } from "./layers.js";

/** a flush that took longer than this had much to write, and more has come meanwhile */
const quickFlushMs = 50;
const maxFlushes = 3;

export interface Taken {
  readonly size: number;
  readonly pausedMs: number;
}

export interface InstantParts {
  readonly kernel: Kernel;
  readonly store: SandboxStore;
  readonly layers: Layers;
}

/** Runs `work` while nothing runs in a cell. */
export type WhileFrozen = <T>(index: number, work: () => Promise<T>) => Promise<{ value: T; pausedMs: number }>;

/** Snapshots of uppers on the pool: subvolumes that share all content with the upper, so that their size costs nothing. */
export class InstantSnapshots {
  readonly #parts: InstantParts;
  readonly #whileFrozen: WhileFrozen;

  constructor(parts: InstantParts, whileFrozen: WhileFrozen) {
    this.#parts = parts;
    this.#whileFrozen = whileFrozen;
  }

  /** What is to be written to the disk is written before, for the most part: the sandbox runs on meanwhile. */
  async take(record: SandboxRecord, image: string): Promise<Taken> {
    const { kernel, store } = this.#parts;
    const upper = store.subvolumePath(record.id, record.upper.generation);
    for (let flushes = 0; flushes < maxFlushes; flushes++) {
      const start = performance.now();
      await kernel.flushPool();
      if (performance.now() - start < quickFlushMs) break;
    }
    const { value, pausedMs } = await this.#whileFrozen(record.cell.index, () =>
      kernel.snapshotUpper(upper, store.snapshotImage(image)),
    );
    return { size: value, pausedMs };
  }

  /** One erofs image of the upper and all snapshots below it, `below`. The sandbox stands still only for a snapshot, of which that is made. */
  async merge(record: SandboxRecord, image: string, below: readonly CapturedRoot[]): Promise<Taken> {
    const { kernel, store, layers } = this.#parts;
    const copy = newImage(record.cell.index);
    const layer = snapshotLayer(store, copy);
    const key = layers.keyOf(layer);
    try {
      const { pausedMs } = await this.take(record, copy);
      await kernel.mountLayer(key, layer.image, layer.format);
      const size = await kernel.capture(store.snapshotImage(image), [{ kind: "layer", key }, ...below]);
      return { size, pausedMs };
    } finally {
      await kernel.unmountLayer(key);
      await store.removeSnapshotImage(copy);
    }
  }
}
