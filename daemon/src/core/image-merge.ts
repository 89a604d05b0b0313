import { SquashError, isSquashError } from "@squash/sdk/errors";
import { endedByRemoval } from "./ended-by-removal.js";
import type { Layers } from "./layers.js";
import type { Kernel, SandboxStore } from "./ports.js";
import { layerRoots, mountSnapshots } from "./snapshot-layers.js";

/** Where a merged image is written to. */
export interface MergeOutput {
  /** relative to the data directory; must not exist */
  readonly path: string;
  /** Removes it; idempotent. Ends the writing, too. */
  readonly remove: () => Promise<unknown>;
}

export interface MergeParts {
  readonly kernel: Pick<Kernel, "capture">;
  readonly store: Pick<SandboxStore, "snapshotImage" | "checkSnapshotImage">;
  readonly layers: Layers;
}

/** Makes one image of those of a snapshot, with the same files, of their mounted layers: nothing stands still for that. */
export class ImageMerge {
  readonly #parts: MergeParts;

  constructor(parts: MergeParts) {
    this.#parts = parts;
  }

  /** `images` are topmost first. Returns the size; of a failure nothing is left. Throws `snapshot_failed`, `snapshot_damaged`, `cancelled`. */
  async run(images: readonly string[], output: MergeOutput, signal: AbortSignal): Promise<number> {
    const { layers } = this.#parts;
    refuseCancelled(signal);
    const keys = await mountSnapshots(this.#parts, images);
    try {
      return await this.#capture(keys, output, signal);
    } catch (cause) {
      await output.remove();
      refuseCancelled(signal);
      if (isSquashError(cause) && cause.code !== "kernel") throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new SquashError("snapshot_failed", `Cannot merge images of snapshots: ${reason}`, { cause });
    } finally {
      await layers.release(keys);
    }
  }

  async #capture(keys: readonly string[], { path, remove }: MergeOutput, signal: AbortSignal): Promise<number> {
    const size = await endedByRemoval(() => this.#parts.kernel.capture(path, layerRoots(keys)), remove, signal);
    refuseCancelled(signal);
    return size;
  }
}

function refuseCancelled(signal: AbortSignal): void {
  if (signal.aborted) throw new SquashError("cancelled", "Cannot merge images of snapshots: it was called off");
}
