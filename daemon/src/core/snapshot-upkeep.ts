import { isSquashError } from "@squash/sdk/errors";
import { errorText } from "./error-text.js";
import type { Emit } from "./events.js";
import type { ImageMerge } from "./image-merge.js";
import { chooseMerge, withMerged } from "./merge-choice.js";
import { pause } from "./pause.js";
import type { SandboxStore, SnapshotRecord } from "./ports.js";
import { randomHex } from "./random.js";
import type { Sandbox } from "./sandbox.js";
import type { Sandboxes } from "./sandboxes.js";
import { shortestStack } from "./snapshot-chain.js";
import type { SnapshotImages } from "./snapshot-images.js";

export interface UpkeepOptions {
  /** images that a snapshot may be made of before some are merged; @default 8 */
  readonly deepest?: number;
  /** how long after a change the work begins, so that a burst of them is over; @default 500 */
  readonly settleMs?: number;
  /** how long what failed is left alone; @default 600,000 */
  readonly retryMs?: number;
}

interface UpkeepParts {
  readonly sandboxes: Sandboxes;
  readonly store: SandboxStore;
  readonly images: SnapshotImages;
  readonly merge: ImageMerge;
  readonly emit: Emit;
}

/**
 * What is done to snapshots in the background, one thing at a time: digests of new images are taken, and where a snapshot is made of many
 * images some are merged. Living stacks keep the images that they are made of.
 */
export class SnapshotUpkeep {
  readonly #parts: UpkeepParts;
  readonly #options: Required<UpkeepOptions>;
  readonly #closing = new AbortController();
  /** images that have a digest, as far as was looked */
  readonly #sealed = new Set<string>();
  /** when what failed, by the lowest image that it was about */
  readonly #failed = new Map<string, number>();
  #running: Promise<void> | null = null;
  #isAsked = false;

  constructor(parts: UpkeepParts, options: UpkeepOptions = {}) {
    this.#parts = parts;
    this.#options = { deepest: 8, settleMs: 500, retryMs: 600_000, ...options };
  }

  /** Says that snapshots have changed. */
  poke(): void {
    this.#isAsked = true;
    if (!this.#closing.signal.aborted) this.#running ??= this.#run();
  }

  /** Waits until there is nothing left to do. */
  async settled(): Promise<void> {
    while (this.#running !== null) await this.#running;
  }

  /** Calls the work off, and returns when it has ended. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.settled();
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (this.#isAsked && !signal.aborted) {
      await pause(this.#options.settleMs, signal);
      this.#isAsked = false;
      await this.#work();
    }
    this.#running = null;
  }

  async #work(): Promise<void> {
    const { signal } = this.#closing;
    for (const image of this.#unsealed()) {
      if (signal.aborted) return;
      await this.#attempt([image], () => this.#seal(image));
    }
    for (let images = this.#mergeable(); images !== null && !signal.aborted; images = this.#mergeable()) {
      const chosen = images;
      await this.#attempt(chosen, () => this.#merge(chosen));
      this.#isAsked = true; // the new image has no digest yet
    }
  }

  /** Nobody waits for it, so a failure is told, and it is left alone for a while. */
  async #attempt(images: readonly string[], work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      this.#leave(images);
      const text = errorText(error);
      const isDamage = isSquashError(error) && error.code === "snapshot_damaged";
      this.#parts.emit({ type: isDamage ? "snapshot.damaged" : "snapshot.upkeep", error: text });
    }
  }

  /** Does not come back to it for a while, so that nothing is tried again and again. */
  #leave(images: readonly string[]): void {
    this.#failed.set(images.at(-1) ?? "", Date.now());
  }

  #hasFailed(images: readonly string[]): boolean {
    const key = images.at(-1) ?? "";
    const at = this.#failed.get(key);
    if (at === undefined || Date.now() - at < this.#options.retryMs) return at !== undefined;
    this.#failed.delete(key);
    return false;
  }

  #snapshots(): SnapshotRecord[] {
    return this.#parts.sandboxes.all().flatMap(({ snapshots }) => snapshots);
  }

  /** All images that snapshots and living stacks are made of. */
  #named(): Set<string> {
    const stacks = this.#parts.sandboxes.all().map(({ record }) => record?.snapshots ?? []);
    return new Set([...stacks, ...this.#snapshots().map(({ images }) => images)].flat());
  }

  #unsealed(): string[] {
    const named = this.#named();
    for (const image of this.#sealed) if (!named.has(image)) this.#sealed.delete(image);
    return [...named].filter((image) => !this.#sealed.has(image) && !this.#hasFailed([image]));
  }

  async #seal(image: string): Promise<void> {
    const { images, store } = this.#parts;
    await images.hold([image], async () => {
      if (!this.#named().has(image)) return; // it has gone meanwhile
      await store.sealSnapshotImage(image, this.#closing.signal);
      this.#sealed.add(image);
    });
  }

  #mergeable(): readonly string[] | null {
    const stacks = this.#snapshots().map(({ images }) => images);
    return chooseMerge(stacks, this.#options.deepest, (images) => this.#hasFailed(images));
  }

  async #merge(images: readonly string[]): Promise<void> {
    const { images: all, merge, store, sandboxes } = this.#parts;
    const known = shortestStack(images, this.#snapshots());
    const merged = known.length === 1 && known[0] !== undefined ? known[0] : randomHex(16);
    const output = { path: store.snapshotImage(merged), remove: () => store.removeSnapshotImage(merged) };
    await all.hold([merged, ...images], async () => {
      if (merged !== known[0]) await merge.run(images, output, this.#closing.signal);
      for (const sandbox of sandboxes.all())
        if (sandbox.snapshots.some((one) => withMerged(one.images, images, merged) !== null))
          await sandboxes.exclusively(sandbox.id, () => this.#replace(sandbox, images, merged));
      const bytes = store.snapshotFacts(merged)?.bytes ?? 0;
      this.#parts.emit({ type: "snapshot.merged", images: images.length, bytes });
    });
  }

  /** In one step for all snapshots of a sandbox. */
  async #replace(sandbox: Sandbox, images: readonly string[], merged: string): Promise<void> {
    const { sandboxes, store } = this.#parts;
    if (!sandboxes.all().includes(sandbox) || sandbox.record === null) return this.#leave(images); // it is gone, or going
    const bytes = store.snapshotFacts(merged)?.bytes ?? 0;
    const snapshots = sandbox.snapshots.map((one) => {
      const stack = withMerged(one.images, images, merged);
      if (stack === null) return one;
      return { ...one, images: stack, mergedFrom: one.images, ...(stack.length === 1 ? { size: bytes } : {}) };
    });
    await store.writeSnapshots(sandbox.id, snapshots);
    sandbox.snapshots = snapshots;
  }
}
