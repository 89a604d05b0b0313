import { SquashError, isSquashError } from "@squash/sdk/errors";
import { endedByRemoval } from "./ended-by-removal.js";
import type { Layers } from "./layers.js";
import type { CapturedRoot, Kernel, LayerImage, SandboxStore } from "./ports.js";
import { layerRoots, mountSnapshots } from "./snapshot-layers.js";
import type { Sandboxes } from "./sandboxes.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { findSnapshot, type Snapshots } from "./snapshots.js";
import { untilFree } from "./until-free.js";

/** What a sandbox has written, in one image. */
export interface Captured {
  /** its modules then, topmost first, which the files lie above */
  readonly modules: readonly string[];
  /** bytes of the image */
  readonly size: number;
}

/** Where an image goes, which must not exist; `remove` removes it. */
interface BoundedOutput {
  readonly image: string;
  readonly remove: () => Promise<unknown>;
  /** bytes of the image, at most */
  readonly sizeLimit: number;
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

  /**
   * Writes an image of all that a module has, uncompressed, of at most `sizeLimit` bytes. `image` is as for `take`; of a failure nothing is left
   * of it. Throws `module_invalid`, `build_failed`, `cancelled`.
   */
  async takeModule(module: LayerImage, output: BoundedOutput, signal: AbortSignal): Promise<void> {
    const keys = await this.#parts.layers.acquire([module]);
    try {
      const roots = keys.map((key) => ({ kind: "exact" as const, key }));
      await this.#captureTo(output, roots, signal);
    } catch (cause) {
      if (!isSquashError(cause) || cause.details["errno"] !== "EFBIG") throw cause;
      const most = `${Math.floor(output.sizeLimit / 1_048_576)} MiB, the most for the space that is free`;
      throw new SquashError("build_failed", `Cannot unpack module "${module.name}": it unpacks to more than ${most}`, {
        cause,
      });
    } finally {
      await this.#parts.layers.release(keys);
    }
  }

  /**
   * Writes an image of the files that a confined tool has unpacked into `directory`, with whiteouts and opaque directories. Both are relative to the
   * data directory; `output` is as for `takeModule`. Returns its size. Throws `build_failed` also for files whose content is in another layer,
   * `cancelled`.
   */
  async takeUnpacked(directory: string, output: BoundedOutput, signal: AbortSignal): Promise<number> {
    try {
      return await this.#captureTo(output, [{ kind: "unpacked", path: directory }], signal);
    } catch (cause) {
      if (!isSquashError(cause) || cause.code !== "kernel") throw cause;
      const { message, details } = cause;
      throw new SquashError("build_failed", `Cannot keep the files that were unpacked: ${message}`, { cause, details });
    }
  }

  /** Of a failure nothing is left of the image. */
  async #captureTo(
    { image, remove, sizeLimit }: BoundedOutput,
    roots: readonly CapturedRoot[],
    signal: AbortSignal,
  ): Promise<number> {
    try {
      return await endedByRemoval(() => this.#capture(image, roots, { sizeLimit, signal }), remove, signal);
    } catch (cause) {
      await remove();
      throw signal.aborted ? cancelled() : cause;
    }
  }

  async #merge(
    stack: readonly string[],
    modules: readonly string[],
    { image, signal }: { readonly image: string; readonly signal: AbortSignal },
  ): Promise<Captured> {
    const keys = await mountSnapshots(this.#parts, stack);
    try {
      return { modules, size: await this.#capture(image, layerRoots(keys), { signal }) };
    } finally {
      await this.#parts.layers.release(keys);
    }
  }

  async #capture(
    image: string,
    roots: readonly CapturedRoot[],
    { sizeLimit, signal }: { readonly sizeLimit?: number; readonly signal: AbortSignal },
  ): Promise<number> {
    return untilFree(() => {
      if (signal.aborted) throw cancelled();
      return this.#parts.kernel.capture(image, roots, sizeLimit);
    });
  }
}

function cancelled(): SquashError {
  return new SquashError("cancelled", "Cannot capture the files: cancelled");
}
