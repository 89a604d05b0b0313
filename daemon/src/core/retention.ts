import type { RetentionRequest } from "@squash/sdk/protocol";
import type { RetentionLimits, SnapshotRecord } from "./ports.js";

/** What a sandbox's own word and the daemon's come to. */
export function retentionOf(own: Partial<RetentionLimits> | undefined, usual: RetentionLimits): RetentionLimits {
  return { keepLast: own?.keepLast ?? usual.keepLast, keepForS: own?.keepForS ?? usual.keepForS };
}

/**
 * Labels of the snapshots that go: those that are neither among the newest `keepLast` nor younger than `keepForS`, nor pinned, nor in
 * `kept`. Where both say nothing none goes. `snapshots` are oldest first.
 */
export function expiredLabels(
  snapshots: readonly SnapshotRecord[],
  { keepLast, keepForS }: RetentionLimits,
  { nowMs, kept }: { readonly nowMs: number; readonly kept: (label: string) => boolean },
): string[] {
  if (keepLast === 0 && keepForS === 0) return [];
  const older = keepLast === 0 ? snapshots : snapshots.slice(0, -keepLast);
  return older
    .filter(({ label, created, pinned }) => {
      const isYoung = keepForS > 0 && nowMs - Date.parse(created) <= keepForS * 1000;
      return !isYoung && pinned !== true && !kept(label);
    })
    .map(({ label }) => label);
}

/** What a request says, as a record keeps it; undefined for one that says nothing. */
export function retentionLimits(request: RetentionRequest | undefined): Partial<RetentionLimits> | undefined {
  const { keep_last: keepLast, keep_for_s: keepForS } = request ?? {};
  if (keepLast === undefined && keepForS === undefined) return undefined;
  return { ...(keepLast === undefined ? {} : { keepLast }), ...(keepForS === undefined ? {} : { keepForS }) };
}
