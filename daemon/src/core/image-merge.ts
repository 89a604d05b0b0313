import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { Layers } from "./layers.js";
import { pause } from "./pause.js";
import type { Kernel, SandboxStore } from "./ports.js";
import { mountSnapshots } from "./sandbox-stages.js";

/** again and again, as the file may not be there yet */
const removeEveryMs = 50;

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

  async #capture(keys: readonly string[], output: MergeOutput, signal: AbortSignal): Promise<number> {
    const ended = new AbortController();
    const roots = keys.map((key) => ({ kind: "layer" as const, key }));
    const work = this.#parts.kernel.capture(output.path, roots).finally(() => ended.abort());
    const undo = async (): Promise<void> => {
      while (!ended.signal.aborted) {
        await output.remove().catch(() => undefined); // tried again
        await pause(removeEveryMs, ended.signal);
      }
    };
    const onAbort = (): void => void undo();
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      const size = await work;
      refuseCancelled(signal);
      return size;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }
}

function refuseCancelled(signal: AbortSignal): void {
  if (signal.aborted) throw new SquashError("cancelled", "Cannot merge images of snapshots: it was called off");
}
