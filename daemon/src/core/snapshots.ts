import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { CollectAnswer, HistoryEntry, SnapshotAnswer, SnapshotRequest } from "@squash/sdk/protocol";
import type { Emit } from "./events.js";
import type { CapturedRoot, Kernel, SandboxRecord, SandboxStore, SnapshotImageFacts, SnapshotRecord } from "./ports.js";
import type { Layers } from "./layers.js";
import { pause } from "./pause.js";
import { InstantSnapshots, type Taken } from "./instant-snapshots.js";
import { newImage, ownerOfImage } from "./image-ids.js";
import type { Sandbox } from "./sandbox.js";
import { snapshotLayer } from "./snapshot-layers.js";
import type { Sandboxes } from "./sandboxes.js";
import { shortestStack } from "./snapshot-chain.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { forgetSnapshots } from "./snapshot-removal.js";
import type { SnapshotRetention } from "./snapshot-retention.js";
import type { SnapshotUpkeep } from "./snapshot-upkeep.js";

const thawTries = 5;
const thawDelayMs = 200;

/** A sandbox may have so many. */
export const snapshotLimit = 256;
/** a stack that is as deep as this is captured as one image, so that none grows without end */
const deepestStack = 16;

export interface SnapshotParts {
  readonly kernel: Kernel;
  readonly store: SandboxStore;
  readonly layers: Layers;
  readonly sandboxes: Sandboxes;
  readonly images: SnapshotImages;
  readonly retention: SnapshotRetention;
  readonly upkeep: Pick<SnapshotUpkeep, "poke">;
  readonly collectFiles: CollectFiles;
  readonly emit: Emit;
}

/** Removes files that no sandbox and no work under way uses, or only says which. */
export type CollectFiles = (options: { readonly dryRun: boolean }) => Promise<{ files: string[]; bytes: number }>;

/** What is captured of a sandbox. */
export interface Moment {
  readonly layers: readonly string[];
  /** topmost first */
  readonly images: readonly string[];
  /** resolves once the images are there and the sandbox runs again; rejects with `snapshot_failed` */
  readonly taken: Promise<Taken>;
  /** Has it outlast a crash of the machine, once it is taken. Throws `snapshot_failed`. */
  readonly sync: () => Promise<void>;
}

/** Snapshots: images of what sandboxes have written, each on top of those that it was restored from. */
export class Snapshots {
  readonly #parts: SnapshotParts;
  readonly #instant: InstantSnapshots;

  constructor(parts: SnapshotParts) {
    this.#parts = parts;
    this.#instant = new InstantSnapshots(parts, (index, work) => this.#whileFrozen(index, work));
  }

  /** Keeps the present files under a label; nothing runs in the sandbox meanwhile. Throws `snapshot_exists`, `snapshot_limit`, `snapshot_failed`. */
  take(id: string, request: SnapshotRequest): Promise<SnapshotAnswer> {
    const { sandboxes, images, retention, upkeep, emit } = this.#parts;
    const sandbox = sandboxes.find(id);
    const label = request.label ?? timeLabel(new Date());
    const image = imageFor(sandbox);
    const work = async (): Promise<SnapshotAnswer> => {
      const record = sandboxes.mustBeReady(sandbox);
      refuseLabel(sandbox, label);
      const created = new Date().toISOString();
      const { images: stack, layers, taken, sync } = this.#capture(sandbox, record, image);
      const { size, pausedMs } = await taken;
      await sync();
      const { by = record.owner, origin = "api", pinned = false } = request;
      const origins = { by, origin, ...(pinned ? { pinned } : {}) };
      await this.#keep(
        sandbox,
        { label, parent: record.head, created, size, layers, images: stack, ...origins },
        image,
      );
      await this.#lead(sandbox, { ...record, head: label }, label);
      emit({ type: "snapshot.taken", sandbox: id, label });
      const removed = await retention.apply(sandbox);
      upkeep.poke();
      return { snapshot: label, size, paused_ms: pausedMs, removed };
    };
    return images.hold([image], () => sandboxes.exclusively(id, work));
  }

  /** The present files without a label, for as long as `work` runs and something it makes names them. */
  moment<T>(id: string, work: (moment: Moment) => Promise<T>): Promise<T> {
    return this.nextMoment(id, async (moment) => {
      await moment.taken;
      return work(moment);
    });
  }

  /** The same; `work` begins beside the capture, and is to see to it that the files are `taken` before it needs them. */
  async nextMoment<T>(id: string, work: (moment: Moment) => Promise<T>): Promise<T> {
    const { sandboxes, images } = this.#parts;
    const sandbox = sandboxes.find(id);
    const image = imageFor(sandbox);
    return images.hold([image], async () => {
      const { working } = await sandboxes.exclusively(id, async () => {
        const moment = this.#capture(sandbox, sandboxes.mustBeReady(sandbox), image);
        const begun = Promise.allSettled([images.hold(moment.images, () => work(moment))]);
        await Promise.allSettled([moment.taken]);
        return { working: begun };
      });
      const [done] = await working;
      if (done.status === "rejected") throw done.reason;
      return done.value;
    });
  }

  history(id: string): HistoryEntry[] {
    const { sandboxes, store } = this.#parts;
    const sandbox = sandboxes.find(id);
    const known = new Map<string, SnapshotImageFacts | null>(); // snapshots share images
    const factsOf = (image: string): SnapshotImageFacts | null => {
      const found = known.get(image) ?? store.snapshotFacts(image);
      known.set(image, found);
      return found;
    };
    return sandbox.snapshots.map((snapshot) => historyEntry(sandbox, snapshot, factsOf));
  }

  /** Pins a snapshot, so that the retention leaves it alone, or the contrary. Throws `snapshot_not_found`. */
  pin(id: string, label: string, pinned: boolean): Promise<HistoryEntry> {
    const { sandboxes, store, retention } = this.#parts;
    const sandbox = sandboxes.find(id);
    return sandboxes.exclusively(id, async () => {
      findSnapshot(sandbox, label);
      const changed = sandbox.snapshots.map((one) => (one.label === label ? withPin(one, pinned) : one));
      await store.writeSnapshots(id, changed);
      sandbox.snapshots = changed;
      const entry = historyEntry(sandbox, findSnapshot(sandbox, label), (image) => store.snapshotFacts(image));
      await retention.apply(sandbox);
      return entry;
    });
  }

  /** Forgets a snapshot; those that were taken after it stay as they are. Throws `snapshot_not_found`. */
  remove(id: string, label: string): Promise<void> {
    const { sandboxes, emit } = this.#parts;
    const sandbox = sandboxes.find(id);
    return sandboxes.exclusively(id, async () => {
      findSnapshot(sandbox, label);
      await forgetSnapshots(this.#parts, sandbox, [label]);
      emit({ type: "snapshot.removed", sandbox: id, labels: [label] });
    });
  }

  /** Removes images that nothing names any more, and files that are of no use. */
  async collect({ dryRun }: { readonly dryRun: boolean }): Promise<CollectAnswer> {
    const { images, collectFiles } = this.#parts;
    const found = dryRun ? await images.findUnused() : await images.collect();
    const { files, bytes } = await collectFiles({ dryRun });
    return { images: found.images, files, bytes: found.bytes + bytes };
  }

  async #keep(sandbox: Sandbox, snapshot: SnapshotRecord, image: string): Promise<void> {
    const { store } = this.#parts;
    const snapshots = [...sandbox.snapshots, snapshot];
    try {
      await store.writeSnapshots(sandbox.id, snapshots);
    } catch (cause) {
      await store.removeSnapshotImage(image);
      throw cannotCapture(sandbox.id, cause);
    }
    sandbox.snapshots = snapshots;
  }

  /** The next one follows upon this. Without it there is none, as the caller is told. */
  async #lead(sandbox: Sandbox, record: SandboxRecord, label: string): Promise<void> {
    try {
      await this.#parts.store.writeRecord(record);
      sandbox.record = record;
    } catch (cause) {
      // it may be left where this fails as well: whole, and not in the way of anything
      await forgetSnapshots(this.#parts, sandbox, [label]).catch(() => undefined);
      throw cannotCapture(sandbox.id, cause);
    }
  }

  /** Begins to capture. What is made of an image that fails is removed. */
  #capture(sandbox: Sandbox, record: SandboxRecord, image: string): Moment {
    const onPool = record.upper.backend === "btrfs";
    const isDeep = onPool ? ownerOfImage(image) === null : record.snapshots.length >= deepestStack;
    const stack = [image, ...(isDeep ? [] : shortestStack(record.snapshots, sandbox.snapshots))];
    const taken = this.#image(record, image, { isDeep }).catch(async (cause: unknown) => {
      await this.#parts.store.removeSnapshotImage(image);
      throw cannotCapture(sandbox.id, cause);
    });
    const sync = async (): Promise<void> => {
      await taken;
      if (!onPool) await this.#sync(sandbox.id, image);
    };
    return { layers: record.layers, images: stack, taken, sync };
  }

  /** Makes the image, of a deep stack one of all of it. */
  async #image(record: SandboxRecord, image: string, { isDeep }: { readonly isDeep: boolean }): Promise<Taken> {
    if (ownerOfImage(image) !== null) return this.#instant.take(record, image);
    const below = isDeep ? this.#roots(record) : [];
    return record.upper.backend === "btrfs"
      ? this.#instant.merge(record, image, below)
      : this.#pack(record, image, below);
  }

  async #sync(id: string, image: string): Promise<void> {
    const { store } = this.#parts;
    try {
      await store.syncSnapshotImage(image);
    } catch (cause) {
      await store.removeSnapshotImage(image);
      throw cannotCapture(id, cause);
    }
  }

  /** An erofs image of the upper and of `below`, made while the sandbox stands still. */
  async #pack(record: SandboxRecord, image: string, below: readonly CapturedRoot[]): Promise<Taken> {
    const { kernel, store } = this.#parts;
    const { index } = record.cell;
    const path = store.upperPath(record.id, record.upper.generation);
    const { value, pausedMs } = await this.#whileFrozen(index, () =>
      kernel.capture(store.snapshotImage(image), [{ kind: "upper", path, index }, ...below]),
    );
    return { size: value, pausedMs };
  }

  /** The sandbox runs again whatever happens. */
  async #whileFrozen<T>(index: number, work: () => Promise<T>): Promise<{ value: T; pausedMs: number }> {
    const start = performance.now();
    try {
      await this.#parts.kernel.freezeCell(index, true);
      const value = await work();
      return { value, pausedMs: performance.now() - start };
    } finally {
      await this.#thaw(index);
    }
  }

  /** Tried again where sq-host has died meanwhile: the next one can do it. */
  async #thaw(index: number): Promise<void> {
    const { kernel } = this.#parts;
    for (let tries = 1; ; tries++) {
      try {
        await kernel.freezeCell(index, false);
        return;
      } catch (error) {
        if (tries === thawTries) throw error;
        await pause(thawDelayMs);
      }
    }
  }

  /** The snapshots in a stack as they are mounted. */
  #roots({ snapshots, layerKeys }: SandboxRecord): CapturedRoot[] {
    const { layers, store } = this.#parts;
    return snapshots.map((image) => {
      const key = layers.keyOf(snapshotLayer(store, image));
      if (!layerKeys.includes(key)) throw new Error(`snapshot ${image} is not mounted`);
      return { kind: "layer", key };
    });
  }
}

function historyEntry(
  sandbox: Sandbox,
  snapshot: SnapshotRecord,
  factsOf: (image: string) => SnapshotImageFacts | null,
): HistoryEntry {
  const { label, parent, created, size, layers, images, by = null, origin = null, pinned = false } = snapshot;
  const facts = images.map(factsOf);
  return {
    label,
    parent,
    created,
    size,
    total_size: facts.reduce((sum, found) => sum + (found?.bytes ?? 0), 0),
    sha256: facts[0]?.sha256 ?? null,
    layers: [...layers],
    depth: images.length,
    by,
    origin,
    pinned,
    active: label === sandbox.record?.restored,
    head: label === sandbox.record?.head,
  };
}

function withPin({ pinned: _, ...snapshot }: SnapshotRecord, pinned: boolean): SnapshotRecord {
  return pinned ? { ...snapshot, pinned } : snapshot;
}

/** Throws `snapshot_not_found`. */
export function findSnapshot(sandbox: Sandbox, label: string): SnapshotRecord {
  const snapshot = sandbox.snapshots.find((one) => one.label === label);
  if (snapshot !== undefined) return snapshot;
  const labels = sandbox.snapshots.map((one) => one.label);
  const known = labels.length === 0 ? "it has none" : `it has ${labels.slice(-10).join(", ")}`;
  throw new SquashError("snapshot_not_found", `Cannot find snapshot "${label}" of "${sandbox.id}": ${known}`);
}

function refuseLabel(sandbox: Sandbox, label: string): void {
  if (sandbox.snapshots.some((one) => one.label === label))
    throw new SquashError("snapshot_exists", `Cannot take snapshot "${label}" of "${sandbox.id}": it exists`);
  if (sandbox.snapshots.length >= snapshotLimit)
    throw new SquashError(
      "snapshot_limit",
      `Cannot take snapshot "${label}" of "${sandbox.id}": it has ${snapshotLimit}; delete some`,
    );
}

function cannotCapture(id: string, cause: unknown): SquashError {
  if (isSquashError(cause) && cause.code !== "kernel") return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  const details = isSquashError(cause) ? cause.details : {};
  return new SquashError("snapshot_failed", `Cannot take a snapshot of "${id}": ${reason}`, { cause, details });
}

/** Named before it is known how deep the stack will be; one that is a little deeper than it should be does no harm. */
function imageFor({ record }: Sandbox): string {
  const isInstant = record?.upper.backend === "btrfs" && record.snapshots.length < deepestStack;
  return newImage(isInstant ? record.cell.index : null);
}

/** `20260131-235959` */
export function timeLabel(time: Date): string {
  return time.toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-");
}
