import { SquashError, isSquashError } from "@squash/sdk/errors";
import { layerOfImage, ownerOfImage } from "./image-ids.js";
import type { Layers } from "./layers.js";
import type { CapturedRoot, LayerImage, SandboxStore } from "./ports.js";

export type SnapshotStore = Pick<SandboxStore, "snapshotImage" | "checkSnapshotImage">;

/** A snapshot's image as a layer. Its name is unique and its content never changes. */
export function snapshotLayer(store: Pick<SandboxStore, "snapshotImage">, image: string): LayerImage {
  const format = ownerOfImage(image) === null ? "erofs" : "subvolume";
  return { name: layerOfImage(image), image: store.snapshotImage(image), format, identity: "0" };
}

/**
 * Mounts images of snapshots, which must be as they were made; the first, `fresh` of them, were a moment ago. Returns the keys in their order; all
 * or nothing. Throws `snapshot_damaged`.
 */
export async function mountSnapshots(
  { store, layers: mounted }: { readonly store: SnapshotStore; readonly layers: Layers },
  images: readonly string[],
  { fresh = 0 }: { readonly fresh?: number } = {},
): Promise<string[]> {
  for (const image of images.slice(fresh)) await store.checkSnapshotImage(image);
  try {
    return await mounted.acquire(images.map((image) => snapshotLayer(store, image)));
  } catch (cause) {
    if (!isSquashError(cause) || cause.code !== "module_invalid") throw cause;
    const { message, details } = cause;
    throw new SquashError("snapshot_damaged", message.replace("use module", "use snapshot image"), { cause, details });
  }
}

/** Mounted layers as what is captured or compared. */
export function layerRoots(keys: readonly string[]): CapturedRoot[] {
  return keys.map((key) => ({ kind: "layer", key }));
}
