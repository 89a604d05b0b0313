import type { SandboxRecord, SnapshotRecord } from "./ports.js";

/** Snapshots without some, oldest first as before: those that were taken after one of these follow upon what that followed upon. */
export function withoutSnapshots(snapshots: readonly SnapshotRecord[], gone: ReadonlySet<string>): SnapshotRecord[] {
  return snapshots
    .filter(({ label }) => !gone.has(label))
    .map((one) => {
      const parent = nearestKept(snapshots, one.parent, gone);
      return parent === one.parent ? one : { ...one, parent };
    });
}

/** A label, or where that goes the nearest one before it that stays; null where there is none, or it is not there. */
export function nearestKept(
  snapshots: readonly SnapshotRecord[],
  label: string | null,
  gone: ReadonlySet<string>,
): string | null {
  const seen = new Set<string>();
  let at = label;
  while (at !== null && gone.has(at) && !seen.has(at)) {
    seen.add(at);
    at = snapshots.find((one) => one.label === at)?.parent ?? null;
  }
  return at !== null && snapshots.some((one) => one.label === at) && !gone.has(at) ? at : null;
}

/** A stack with as few images as are known to have the same files: those of a snapshot that was merged since take the place of the old ones. */
export function shortestStack(images: readonly string[], snapshots: readonly SnapshotRecord[]): readonly string[] {
  let best = images;
  for (const { images: merged, mergedFrom } of snapshots) {
    if (mergedFrom === undefined || !endsWith(images, mergedFrom)) continue;
    const shorter = [...images.slice(0, images.length - mergedFrom.length), ...merged];
    if (shorter.length < best.length) best = shorter;
  }
  return best;
}

/** Whether a stack lies upon all images of another, in their order. */
export function endsWith(images: readonly string[], below: readonly string[]): boolean {
  const above = images.length - below.length;
  return above >= 0 && below.every((image, at) => images[above + at] === image);
}

/** A record that names no snapshot which is not in the list: what was cut off between the two names nothing. */
export function withKnownLabels(record: SandboxRecord, snapshots: readonly SnapshotRecord[]): SandboxRecord {
  const known = (label: string | null): string | null => (snapshots.some((one) => one.label === label) ? label : null);
  return { ...record, head: known(record.head), restored: known(record.restored) };
}
