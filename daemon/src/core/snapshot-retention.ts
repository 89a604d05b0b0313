import type { RetentionAnswer, RetentionRequest } from "@squash/sdk/protocol";
import { errorText } from "./error-text.js";
import type { Emit } from "./events.js";
import type { LabelsInUse } from "./labels-in-use.js";
import type { RetentionLimits, SandboxStore } from "./ports.js";
import { expiredLabels, retentionLimits, retentionOf } from "./retention.js";
import type { Sandbox } from "./sandbox.js";
import type { Sandboxes } from "./sandboxes.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { forgetSnapshots } from "./snapshot-removal.js";

const intervalMs = 1_000;

interface RetentionParts {
  readonly sandboxes: Sandboxes;
  readonly store: SandboxStore;
  readonly images: SnapshotImages;
  readonly labels: LabelsInUse;
  /** of sandboxes that say nothing */
  readonly usual: RetentionLimits;
  readonly emit: Emit;
}

/**
 * Removes snapshots that are not to be kept any longer: after each one that is taken, when the settings change, and by a timer. Only of
 * ready sandboxes: of others they may be all that is left.
 */
export class SnapshotRetention {
  readonly #parts: RetentionParts;
  readonly #busy = new Set<Sandbox>();

  constructor(parts: RetentionParts) {
    this.#parts = parts;
  }

  /** Replaces a sandbox's own settings. Throws `sandbox_not_ready`. */
  async set(id: string, request: RetentionRequest): Promise<RetentionAnswer> {
    const { sandboxes, store } = this.#parts;
    const sandbox = sandboxes.find(id);
    return sandboxes.exclusively(id, async () => {
      const { retention: _, ...record } = sandboxes.mustBeReady(sandbox);
      const retention = retentionLimits(request);
      const next = { ...record, ...(retention === undefined ? {} : { retention }) };
      await store.writeRecord(next);
      sandbox.record = next;
      const removed = await this.#remove(sandbox);
      const { keepLast, keepForS } = this.#limits(sandbox);
      return { keep_last: keepLast, keep_for_s: keepForS, removed };
    });
  }

  /** Removes what goes of one sandbox. Must run exclusively. Never throws: nobody waits for it, and the timer tries again. */
  async apply(sandbox: Sandbox): Promise<string[]> {
    try {
      return await this.#remove(sandbox);
    } catch (error) {
      const text = errorText(error);
      this.#parts.emit({ type: "snapshot.upkeep", error: `snapshots of "${sandbox.id}" cannot be removed: ${text}` });
      return [];
    }
  }

  /** Removes what goes of all sandboxes. */
  async sweep(): Promise<void> {
    const { sandboxes } = this.#parts;
    const due = sandboxes.all().filter((sandbox) => !this.#busy.has(sandbox) && this.#expired(sandbox).length > 0);
    await Promise.all(due.map((sandbox) => this.#sweepOne(sandbox)));
  }

  /** Begins to look at regular times. Returns how to stop it. */
  start(): () => void {
    const timer = setInterval(() => void this.sweep(), intervalMs);
    timer.unref();
    return () => clearInterval(timer);
  }

  async #sweepOne(sandbox: Sandbox): Promise<void> {
    this.#busy.add(sandbox);
    try {
      await this.#parts.sandboxes.exclusively(sandbox.id, () => this.apply(sandbox));
    } finally {
      this.#busy.delete(sandbox);
    }
  }

  async #remove(sandbox: Sandbox): Promise<string[]> {
    const labels = this.#expired(sandbox);
    if (labels.length === 0) return [];
    await forgetSnapshots(this.#parts, sandbox, labels);
    this.#parts.emit({ type: "snapshot.expired", sandbox: sandbox.id, labels });
    this.#parts.emit({ type: "snapshot.removed", sandbox: sandbox.id, labels });
    return labels;
  }

  #expired(sandbox: Sandbox): string[] {
    const { record, snapshots, state } = sandbox;
    if (record === null || state !== "ready" || snapshots.length === 0) return [];
    const { head, restored } = record;
    const kept = (label: string): boolean =>
      label === head || label === restored || this.#parts.labels.has(sandbox, label);
    return expiredLabels(snapshots, this.#limits(sandbox), { nowMs: Date.now(), kept });
  }

  #limits({ record }: Sandbox): RetentionLimits {
    return retentionOf(record?.retention, this.#parts.usual);
  }
}
