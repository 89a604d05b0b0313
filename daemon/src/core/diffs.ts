import { SquashError, isSquashError } from "@squash/sdk/errors";
import { endedByRemoval } from "./ended-by-removal.js";
import { nameOfSide, parseSide, type DiffSide } from "./diff-sides.js";
import type { Layers } from "./layers.js";
import type { Comparison, Kernel, ModuleCatalog, SandboxStore, TakenOutput } from "./ports.js";
import { randomHex } from "./random.js";
import { layerRoots, mountSnapshots, type SnapshotStore } from "./snapshot-layers.js";
import type { Sandboxes } from "./sandboxes.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { findSnapshot, type Moment, type Snapshots } from "./snapshots.js";

/** so that captures, which share sq-host's processes, always find one */
const comparisonLimit = 4;
const deadlineMs = 600_000;

export interface DiffParts {
  readonly kernel: Pick<Kernel, "compare">;
  readonly store: SnapshotStore & Pick<SandboxStore, "removeSnapshotImage" | "takeOutput">;
  readonly catalog: ModuleCatalog;
  readonly layers: Layers;
  readonly sandboxes: Sandboxes;
  readonly images: SnapshotImages;
  readonly snapshots: Snapshots;
}

type Files = Pick<Moment, "layers" | "images">;

export interface DiffRequest extends Pick<Comparison, "only" | "contents" | "contentLimit" | "outputLimit"> {
  /** as `parseSide` reads it; what was taken or restored last, or else the base, without */
  readonly from?: string | undefined;
  /** the live state without */
  readonly to?: string | undefined;
}

/** What was compared, and the records of what differs. */
export interface Difference {
  readonly from: string;
  readonly to: string;
  readonly output: TakenOutput;
}

/** Compares files of sandboxes: of now, of snapshots, and of the modules alone. */
export class Diffs {
  readonly #parts: DiffParts;
  #running = 0;

  constructor(parts: DiffParts) {
    this.#parts = parts;
  }

  /** The caller closes the output. Throws `sandbox_not_found`, `snapshot_not_found`, `sandbox_not_ready`, `diff_limit`, `diff_failed`. */
  async compare(id: string, request: DiffRequest, signal: AbortSignal): Promise<Difference> {
    const { record } = this.#parts.sandboxes.find(id);
    const head = record?.head ?? null;
    const from: DiffSide =
      request.from !== undefined
        ? parseSide(request.from, id)
        : head === null
          ? { kind: "base", sandbox: id }
          : { kind: "snapshot", sandbox: id, label: head };
    const to = parseSide(request.to ?? "live", id);
    if (this.#running >= comparisonLimit)
      throw new SquashError("diff_limit", `Cannot compare files of "${id}": ${comparisonLimit} comparisons run`);
    this.#running++;
    try {
      const output = await this.#with(from, (old) => this.#with(to, (now) => this.#run(old, now, request, signal)));
      return { from: nameOfSide(from, id), to: nameOfSide(to, id), output };
    } catch (cause) {
      throw cannotCompare(id, cause);
    } finally {
      this.#running--;
    }
  }

  /** Finds the files of a side, and keeps them while `work` runs. */
  #with<T>(side: DiffSide, work: (files: Files) => Promise<T>): Promise<T> {
    const { sandboxes, snapshots, images } = this.#parts;
    if (side.kind === "live") return snapshots.moment(side.sandbox, work);
    const sandbox = sandboxes.find(side.sandbox);
    if (side.kind === "snapshot") {
      const snapshot = findSnapshot(sandbox, side.label);
      return images.hold(snapshot.images, () => work(snapshot));
    }
    if (sandbox.record === null)
      throw new SquashError("sandbox_not_ready", `Cannot compare files of "${side.sandbox}": it is being made`);
    return work({ layers: sandbox.record.layers, images: [] });
  }

  async #run(old: Files, now: Files, request: DiffRequest, signal: AbortSignal): Promise<TakenOutput> {
    const mounted: string[] = [];
    try {
      const from = layerRoots(await this.#mount(old, mounted));
      const to = layerRoots(await this.#mount(now, mounted));
      return await this.#write({ ...request, from, to }, signal);
    } finally {
      await this.#parts.layers.release(mounted);
    }
  }

  /** Returns the keys of a stack, topmost first, and adds to `mounted` what is to be given back, whatever happens. */
  async #mount({ layers: names, images }: Files, mounted: string[]): Promise<string[]> {
    const { catalog, layers } = this.#parts;
    const modules = await Promise.all(names.map((name) => catalog.resolve(name)));
    const above = await mountSnapshots(this.#parts, images);
    mounted.push(...above);
    const below = await layers.acquire(modules);
    mounted.push(...below);
    return [...above, ...below];
  }

  async #write(comparison: Comparison, signal: AbortSignal): Promise<TakenOutput> {
    const { images, kernel, store } = this.#parts;
    const output = randomHex(16); // named like an image, so that what a crash leaves is collected like one
    const remove = (): Promise<unknown> => store.removeSnapshotImage(output);
    return images.hold([output], async () => {
      const either = AbortSignal.any([signal, AbortSignal.timeout(deadlineMs)]);
      try {
        either.throwIfAborted();
        await endedByRemoval(() => kernel.compare(store.snapshotImage(output), comparison), remove, either);
        either.throwIfAborted();
        return await store.takeOutput(output);
      } finally {
        await remove();
      }
    });
  }
}

function cannotCompare(id: string, cause: unknown): SquashError {
  if (isSquashError(cause) && cause.code !== "kernel") return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  const details = isSquashError(cause) ? cause.details : {};
  return new SquashError("diff_failed", `Cannot compare files of "${id}": ${reason}`, { cause, details });
}
