import { createHash, randomBytes } from "node:crypto";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { SandboxInfo } from "@squash/sdk/protocol";
import { errorText } from "../core/error-text.js";
import type { Emit } from "../core/events.js";
import type { Kernel, SandboxRecord } from "../core/ports.js";
import type { Custody, Making } from "../core/remote/custody.js";
import { Leases } from "../core/remote/lease.js";
import { ownClock } from "../core/remote/lease-time.js";
import type { SavedSandbox } from "../core/remote/sandbox-manifest.js";
import type { Sandbox } from "../core/sandbox.js";
import type { Sandboxes } from "../core/sandboxes.js";
import { timeLabel, type Snapshots } from "../core/snapshots.js";
import { pause } from "../core/pause.js";
import { builderOwner } from "../modules/job-preset.js";
import { inParallel } from "../s3/pool.js";
import type { BucketParts } from "./bucket-parts.js";
import type { RemoteSnapshots } from "./remote-snapshots.js";
import { requestOf, savedOf, savedOfPlan } from "./saved-sandbox.js";

const prefix = "auto-";
/** of the snapshots that were taken to save the sandbox, so many of the newest stay */
const keptCheckpoints = 2;
const saveTries = 3;
const parallel = 4;
const recoverMs = 30_000;
const retryMs = 1_000;

export interface EphemeralOptions {
  readonly machine: string;
  readonly leaseS: number;
  readonly checkpointS: number;
  readonly bucket: BucketParts;
  readonly emit: Emit;
  readonly warn: (text: string) => void;
}

/** What is there once squashd has started. */
export interface EphemeralWorld {
  readonly sandboxes: Sandboxes;
  readonly snapshots: Snapshots;
  readonly remote: RemoteSnapshots;
  /** sends a snapshot so that no sweep takes it away */
  readonly push: (id: string, label: string, signal: AbortSignal) => Promise<void>;
}

/** Keeps sandboxes in the bucket: each runs on one machine at a time, and any machine goes on with it. */
export class EphemeralHouse implements Custody {
  readonly #options: EphemeralOptions;
  readonly #leases: Leases;
  readonly #closing = new AbortController();
  /** how far a sandbox had come when it was saved last, where nothing ran in it then; of that very one, not of a later one of its name */
  readonly #clean = new WeakMap<Sandbox, number>();
  readonly #saving = new Map<string, Promise<void>>();
  #kernel: Kernel | null = null;
  #world: EphemeralWorld | null = null;
  #timer: NodeJS.Timeout | null = null;
  #isDraining = false;

  constructor(options: EphemeralOptions) {
    this.#options = options;
    this.#leases = new Leases({
      machine: options.machine,
      leaseS: options.leaseS,
      store: options.bucket.sealed,
      clock: ownClock(() => this.#mustHaveKernel().bootMs()),
      sha256: (text) => createHash("sha256").update(text).digest("hex"),
      listener: {
        extended: (id, deadlineMs) => void this.#extend(id, deadlineMs),
        lost: (id, reason) => void this.#lose(id, reason),
      },
    });
  }

  /** Before sandboxes are recovered. */
  useKernel(kernel: Kernel): this {
    this.#kernel = kernel;
    return this;
  }

  connect(world: EphemeralWorld): void {
    this.#world = world;
    this.#timer = setInterval(() => void this.#checkpoint(), this.#options.checkpointS * 1_000);
    this.#timer.unref();
  }

  async create({ plan, replan, make, signal }: Making): Promise<SandboxInfo> {
    if (plan.owner === builderOwner) return make(plan, []);
    if (this.#isDraining)
      throw new SquashError("shutting_down", `Cannot create sandbox "${plan.id}": squashd is shutting down`);
    const { sandbox: saved } = await this.#leases.acquire(plan.id);
    try {
      const info = await this.#make({ plan, make, signal, ...(replan && { replan }) }, saved);
      if ((saved?.latestSnapshot ?? null) !== null) this.#clean.set(this.#mustBeConnected().sandboxes.find(plan.id), 0);
      return info;
    } catch (error) {
      // what there is to go on with was there before; a lease that cannot be given back ends by itself
      await this.#leases.release(plan.id, { forget: saved === null }).catch(() => undefined);
      throw error;
    }
  }

  async guard({ id, owner }: { readonly id: string; readonly owner: string }, index: number): Promise<void> {
    if (owner === builderOwner) return;
    const deadline = this.#leases.deadlineOf(id);
    if (deadline === null)
      throw new SquashError("lease_lost", `Cannot run sandbox "${id}": this machine may not, or not any more`);
    await this.#mustHaveKernel().setDeadline(index, deadline);
  }

  async destroy(id: string, remove: () => Promise<void>): Promise<void> {
    const { sandboxes } = this.#mustBeConnected();
    const sandbox = sandboxes.find(id);
    if (!this.#leases.ids().includes(id)) return this.#removeUnheld(sandbox, remove);
    for (let tries = 0; tries < saveTries && !this.#isClean(sandbox); tries++) {
      await sandboxes.exclusively(id, () => Promise.resolve()); // it may be being rebuilt
      if (sandbox.state === "lost") break; // so are its files
      if (sandbox.state !== "ready") throw cannotSave(sandbox);
      const before = sandbox.lastSeq;
      await this.#save(id, this.#closing.signal);
      // what was done meanwhile is saved as well, but nobody can go on for ever
      if (sandbox.running.size === 0 && sandbox.lastSeq === before) break;
    }
    await remove();
    await this.#leases.release(id).catch((error: unknown) => {
      this.#options.warn(`others have sandbox "${id}" once its lease is over: ${errorText(error)}`);
    });
  }

  /** Of one that this machine had to let go, as it will be discarded anyway: whoever asks is told that others do not have all of it. */
  async #removeUnheld(sandbox: Sandbox, remove: () => Promise<void>): Promise<void> {
    const { id, record } = sandbox;
    const isKept = record !== null && record.owner !== builderOwner;
    const isSaved = !isKept || this.#isClean(sandbox);
    await remove();
    if (isSaved) return;
    throw new SquashError(
      "lease_lost",
      `Cannot save sandbox "${id}", which a destroy does first: this machine may not run it any more. It is gone here, and goes on elsewhere as it was saved last`,
    );
  }

  async recover({ id, owner }: { readonly id: string; readonly owner: string }): Promise<"ours" | "taken"> {
    if (owner === builderOwner) return "ours";
    for (const end = Date.now() + recoverMs; ;) {
      try {
        await this.#leases.reacquire(id);
        return "ours";
      } catch (error) {
        const code = isSquashError(error) ? error.code : "internal";
        if (code === "sandbox_leased" || code === "lease_lost") {
          this.#options.emit({ type: "sandbox.fenced", sandbox: id, reason: errorText(error) });
          return "taken";
        }
        if (code !== "s3_unreachable" || Date.now() > end) throw error;
        await pause(retryMs);
      }
    }
  }

  /** Removes all that the bucket keeps of a sandbox that runs nowhere. Throws `sandbox_leased`, `sandbox_exists`. */
  async forget(id: string, signal: AbortSignal): Promise<void> {
    const { sandboxes } = this.#mustBeConnected();
    const here = sandboxes.all().find((one) => one.id === id);
    if (here?.state === "failed") await sandboxes.discard(id);
    else if (here !== undefined)
      throw new SquashError("sandbox_exists", `Cannot forget sandbox "${id}": it runs here; destroy it first`);
    await this.#leases.acquire(id);
    try {
      await removeSandbox(this.#options.bucket, id, signal);
    } finally {
      await this.#leases.release(id).catch(() => undefined); // it ends by itself
    }
  }

  /**
   * A snapshot has come to the bucket: whoever goes on with the sandbox begins with the newest. Throws `lease_lost` where they do not, as this machine
   * had to let the sandbox go meanwhile.
   */
  async pushed(id: string, label: string): Promise<void> {
    const { sandboxes } = this.#mustBeConnected();
    const { record, snapshots } = sandboxes.find(id);
    if (record === null || record.owner === builderOwner) return;
    const at = (of: string | null): number => snapshots.findIndex((one) => one.label === of);
    await this.#leases.commit(id, (saved) => {
      const latest = saved?.latestSnapshot ?? null;
      return savedOf(record, at(label) >= at(latest) ? label : latest);
    });
  }

  /**
   * Whether a snapshot that was removed here may leave the bucket: not where another machine may begin with it. The sandbox is saved anew where it is
   * what they would begin with.
   */
  async mayLeave(id: string, label: string): Promise<boolean> {
    const isNeeded = (): boolean => this.#leases.saved(id)?.latestSnapshot === label;
    if (!this.#leases.ids().includes(id)) return false;
    if (isNeeded()) await this.#save(id, this.#closing.signal);
    return this.#leases.ids().includes(id) && !isNeeded();
  }

  /** Saves all sandboxes and takes them down, as others go on with them. Returns those that could not be saved, which stay, each with the reason. */
  async drain(timeoutMs: number): Promise<Map<string, string>> {
    this.#isDraining = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    const left = new Map<string, string>();
    const late = AbortSignal.timeout(timeoutMs);
    const { sandboxes } = this.#mustBeConnected();
    const ended = new Promise<never>((_, reject) => {
      late.addEventListener("abort", () => reject(new Error(`it took longer than ${timeoutMs / 1_000} s`)));
    });
    ended.catch(() => undefined);
    await inParallel(this.#leases.ids(), parallel, async (id) => {
      try {
        await Promise.race([sandboxes.destroy(id), ended]);
      } catch (error) {
        if (!isSquashError(error) || error.code !== "sandbox_not_found") left.set(id, errorText(error));
      }
    });
    return left;
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#closing.abort();
    this.#leases.stop();
  }

  async #make({ plan, replan, make, signal }: Making, saved: SavedSandbox | null): Promise<SandboxInfo> {
    const { id } = plan;
    if (saved === null) {
      await this.#leases.commit(id, () => savedOfPlan(plan, null));
      return make(plan, []);
    }
    if (replan === undefined)
      throw new SquashError("sandbox_exists", `Cannot create sandbox "${id}": one of that name is kept in the bucket`);
    const { created, forkedFrom, latestSnapshot: label } = saved;
    // a request that names no modules has none in its list
    const requestedLayers = plan.requestedLayers.length > 0 ? plan.requestedLayers : saved.layers;
    const again = { ...replan(requestOf(saved)), requestedLayers, created, forkedFrom };
    if (label === null) return make(again, []);
    const { remote } = this.#mustBeConnected();
    const wanted = { id, label, layers: requestedLayers };
    const made = remote.withImages(wanted, { signal, progress: () => undefined }, (snapshot) => {
      const { layers, images } = snapshot;
      return make({ ...again, requestedLayers: layers, snapshots: images, restored: label, head: label }, [
        { ...snapshot, parent: null },
      ]);
    });
    return made.catch((cause: unknown) => {
      if (!isSquashError(cause) || cause.code !== "snapshot_not_found") throw cause;
      const what = `its files are those of snapshot "${label}", which the bucket does not have`;
      throw new SquashError("s3_object_missing", `Cannot create sandbox "${id}": ${what}`, { cause });
    });
  }

  /** Takes a snapshot, has the bucket keep it, and has it be what others begin with. Throws as those do. */
  #save(id: string, signal: AbortSignal): Promise<void> {
    const running = this.#saving.get(id);
    const saving = (running ?? Promise.resolve()).catch(() => undefined).then(() => this.#saveNow(id, signal));
    const ended = saving.finally(() => {
      if (this.#saving.get(id) === ended) this.#saving.delete(id);
    });
    this.#saving.set(id, ended);
    return ended;
  }

  async #saveNow(id: string, signal: AbortSignal): Promise<void> {
    const { sandboxes, snapshots, push } = this.#mustBeConnected();
    const sandbox = sandboxes.find(id);
    const seq = sandbox.lastSeq;
    const isQuiet = await this.#isQuiet(sandbox);
    const label = `${prefix}${timeLabel(new Date())}-${randomBytes(3).toString("hex")}`;
    await snapshots.take(id, { label, by: "squashd" });
    await push(id, label, signal); // which is told of it
    if (isQuiet && (await this.#isQuiet(sandbox))) this.#clean.set(sandbox, seq);
    const old = sandbox.snapshots.filter((one) => one.label.startsWith(prefix)).slice(0, -keptCheckpoints);
    for (const one of old) await snapshots.remove(id, one.label);
  }

  /** Whether nothing can have been written since it was saved. */
  #isClean(sandbox: Sandbox): boolean {
    return sandbox.running.size === 0 && this.#clean.get(sandbox) === sandbox.lastSeq;
  }

  /** Whether no program runs in it. */
  async #isQuiet({ running, record }: Sandbox): Promise<boolean> {
    if (record === null || running.size > 0) return false;
    return (await this.#mustHaveKernel().tasks(record.cell.index, record.cell.pid)).length === 0;
  }

  async #checkpoint(): Promise<void> {
    const { sandboxes } = this.#mustBeConnected();
    const due = sandboxes
      .all()
      .filter((one) => one.state === "ready" && this.#leases.ids().includes(one.id) && !this.#isClean(one));
    await inParallel(due, parallel, async ({ id }) => {
      if (this.#saving.has(id)) return; // the last one takes long
      await this.#save(id, this.#closing.signal).catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#options.warn(`sandbox "${id}" cannot be saved: ${errorText(error)}`);
      });
    });
  }

  async #extend(id: string, deadlineMs: number): Promise<void> {
    const index = this.#recordOf(id)?.cell.index;
    if (index === undefined) return; // it is told when its cell is there
    // one that cannot be told ends earlier
    await this.#mustHaveKernel()
      .setDeadline(index, deadlineMs)
      .catch((error: unknown) => this.#options.warn(`the lease of "${id}" cannot be prolonged: ${errorText(error)}`));
  }

  async #lose(id: string, reason: string): Promise<void> {
    this.#options.emit({ type: "sandbox.fenced", sandbox: id, reason });
    const index = this.#recordOf(id)?.cell.index;
    if (index !== undefined)
      await this.#mustHaveKernel()
        .killCell(index)
        .catch(() => undefined);
    await this.#world?.sandboxes.discard(id).catch((error: unknown) => {
      if (!isSquashError(error) || error.code !== "sandbox_not_found")
        this.#options.warn(`sandbox "${id}", which another machine may have, cannot be removed: ${errorText(error)}`);
    });
  }

  #recordOf(id: string): SandboxRecord | null {
    return this.#world?.sandboxes.all().find((one) => one.id === id)?.record ?? null;
  }

  #mustHaveKernel(): Kernel {
    if (this.#kernel === null) throw new Error("the kernel is not there yet");
    return this.#kernel;
  }

  #mustBeConnected(): EphemeralWorld {
    if (this.#world === null)
      throw new SquashError("sandbox_not_ready", "Cannot use the bucket: squashd is still starting; try again");
    return this.#world;
  }
}

function cannotSave({ id, reason }: Sandbox): SquashError {
  const hint = `start squashd anew, which tries to rebuild it, or give it up with "sq s3 rm sandbox ${id}"`;
  return new SquashError(
    "sandbox_not_ready",
    `Cannot save sandbox "${id}", which a destroy does first: ${reason ?? "it does not work"}; ${hint}`,
  );
}

/** Removes all that the bucket has of a sandbox, whoever has it. */
export async function removeSandbox({ bucket, older }: BucketParts, id: string, signal: AbortSignal): Promise<void> {
  const keys = await older.keysOf({ id, label: null }, signal);
  for await (const { key } of bucket.list(`sandboxes/${id}/`, signal)) keys.push(key);
  await bucket.remove(keys, signal);
}
