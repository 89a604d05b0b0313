import { isSquashError } from "@squash/sdk/errors";
import type { RemoteSnapshotInfo } from "@squash/sdk/protocol";
import { inParallel } from "../s3/pool.js";
import type { SnapshotObjects } from "../s3/snapshot-objects.js";

const parallel = 8;

/** Snapshots of a sandbox in the bucket, or all that there are, in the order of their letters. One that is damaged is listed with what is wrong with it. */
export async function listSnapshots(
  snapshots: SnapshotObjects,
  sandbox: string | null,
  signal: AbortSignal,
): Promise<RemoteSnapshotInfo[]> {
  const found: (RemoteSnapshotInfo | null)[] = [];
  await inParallel(snapshots.all(signal, sandbox), parallel, async ({ id, label }) => {
    const at = found.push(null) - 1;
    found[at] = await infoOf(snapshots, { id, label }, signal);
  });
  return found.filter((info) => info !== null);
}

/** null where it has been removed meanwhile */
async function infoOf(
  snapshots: SnapshotObjects,
  place: { readonly id: string; readonly label: string },
  signal: AbortSignal,
): Promise<RemoteSnapshotInfo | null> {
  try {
    const snapshot = await snapshots.read(place.id, place.label, signal);
    if (snapshot === null) return null;
    const { created, layers, images } = snapshot;
    const size = images.reduce((sum, { file }) => sum + file.size, 0);
    return { ...place, created, size, layers: [...layers], older: false, problem: null };
  } catch (error) {
    if (!isSquashError(error) || error.code !== "s3_object_invalid") throw error;
    return { ...place, created: null, size: 0, layers: [], older: false, problem: error.message };
  }
}
