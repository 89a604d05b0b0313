import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { Layers } from "./layers.js";
import { pause } from "./pause.js";
import type { Kernel, SandboxStore } from "./ports.js";
import { layerRoots, mountSnapshots } from "./sandbox-stages.js";
import type { Sandboxes } from "./sandboxes.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { findSnapshot, type Snapshots } from "./snapshots.js";

const busyTries = 30;
const busyMs = 1_000;

/** What a sandbox has written, in one image. */
export interface Captured {
  /** its modules then, topmost first, which the files lie above */
  readonly modules: readonly string[];
  /** bytes of the image */
  readonly size: number;
}

export interface CaptureParts {
  readonly kernel: Pick<Kernel, "capture">;
  readonly store: SandboxStore;
  readonly layers: Layers;
  readonly sandboxes: Sandboxes;
  readonly snapshots: Snapshots;
  readonly images: SnapshotImages;
}

/** Takes what sandboxes have written out of them, as one image of what overlayfs would show of it. */
export class Captures {
  readonly #parts: CaptureParts;

  constructor(parts: CaptureParts) {
    this.#parts = parts;
  }

  /**
   * Writes an image of what a sandbox has written by now, or of a snapshot, with whiteouts and opaque directories. `image` is relative to the
   * data directory and must not exist; what a failure leaves of it is the caller's to remove. The sandbox stands still for a moment only.
   * Throws `sandbox_not_found`, `sandbox_not_ready`, `snapshot_not_found`, `snapshot_failed`, `cancelled`.
   */
  async take(
    id: string,
    label: string | null,
    { image, signal }: { readonly image: string; readonly signal: AbortSignal },
  ): Promise<Captured> {
    const { sandboxes, snapshots, images } = this.#parts;
    if (label === null)
      return snapshots.moment(id, (moment) => this.#merge(moment.images, moment.layers, { image, signal }));
    const snapshot = findSnapshot(sandboxes.find(id), label);
    return images.hold(snapshot.images, () => this.#merge(snapshot.images, snapshot.layers, { image, signal }));
  }

  async #merge(
    stack: readonly string[],
    modules: readonly string[],
    { image, signal }: { readonly image: string; readonly signal: AbortSignal },
  ): Promise<Captured> {
    const { layers, kernel } = this.#parts;
    const keys = await mountSnapshots(this.#parts, stack);
    try {
      const roots = layerRoots(keys);
      for (let tries = 1; ; tries++) {
        if (signal.aborted) throw new SquashError("cancelled", "Cannot capture the files: cancelled");
        try {
          return { modules, size: await kernel.capture(image, roots) };
        } catch (error) {
          // as many are being captured as may be at a time; this one can wait, and has made nothing
          if (!isSquashError(error) || error.details["errno"] !== "EAGAIN" || tries === busyTries) throw error;
          await pause(busyMs);
        }
      }
    } finally {
      await layers.release(keys);
    }
  }
}
