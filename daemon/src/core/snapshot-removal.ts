import type { SandboxStore } from "./ports.js";
import type { Sandbox } from "./sandbox.js";
import { nearestKept, withoutSnapshots } from "./snapshot-chain.js";
import type { SnapshotImages } from "./snapshot-images.js";

/** Forgets snapshots of a sandbox, in one step; those that were taken after them stay whole. Must run exclusively. */
export async function forgetSnapshots(
  { store, images }: { readonly store: SandboxStore; readonly images: SnapshotImages },
  sandbox: Sandbox,
  labels: readonly string[],
): Promise<void> {
  const { record, snapshots } = sandbox;
  const gone = new Set(labels);
  const left = withoutSnapshots(snapshots, gone);
  if (record !== null && [record.head, record.restored].some((label) => label !== null && gone.has(label))) {
    // first of all: after a crash in between, the record must not name what is not there
    const { head, restored } = record;
    const isGone = restored !== null && gone.has(restored);
    const next = { ...record, head: nearestKept(snapshots, head, gone), restored: isGone ? null : restored };
    await store.writeRecord(next);
    sandbox.record = next;
  }
  await store.writeSnapshots(sandbox.id, left);
  sandbox.snapshots = left;
  await images.release(snapshots.filter(({ label }) => gone.has(label)).flatMap((one) => one.images));
}
