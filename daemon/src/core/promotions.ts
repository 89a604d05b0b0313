import type { ImageMerge, MergeOutput } from "./image-merge.js";
import type { LabelsInUse } from "./labels-in-use.js";
import type { Sandboxes } from "./sandboxes.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { findSnapshot } from "./snapshots.js";

/** A snapshot, by the sandbox's id and its label. */
export interface SnapshotName {
  readonly id: string;
  readonly label: string;
}

interface PromotionParts {
  readonly sandboxes: Sandboxes;
  readonly images: SnapshotImages;
  readonly labels: LabelsInUse;
  readonly merge: ImageMerge;
}

/** Files of snapshots for whoever makes modules of them. */
export class Promotions {
  readonly #parts: PromotionParts;

  constructor(parts: PromotionParts) {
    this.#parts = parts;
  }

  /** Modules that a snapshot stands on, topmost first. Throws `sandbox_not_found`, `snapshot_not_found`. */
  layersOf({ id, label }: SnapshotName): readonly string[] {
    return findSnapshot(this.#parts.sandboxes.find(id), label).layers;
  }

  /** Keeps the retention off a snapshot until the answer is called, as for work that waits for its turn. Throws as `layersOf` does. */
  keep({ id, label }: SnapshotName): () => void {
    const { sandboxes, labels } = this.#parts;
    const sandbox = sandboxes.find(id);
    findSnapshot(sandbox, label);
    return labels.add(sandbox, label);
  }

  /** Writes the files of a snapshot above its modules as one image. Throws as `layersOf` and `ImageMerge.run` do. */
  async write({ id, label }: SnapshotName, output: MergeOutput, signal: AbortSignal): Promise<void> {
    const { sandboxes, images, labels, merge } = this.#parts;
    const sandbox = sandboxes.find(id);
    const snapshot = findSnapshot(sandbox, label);
    const work = (): Promise<number> => merge.run(snapshot.images, output, signal);
    await labels.use(sandbox, label, () => images.hold(snapshot.images, work));
  }
}
