import { dirname, join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type {
  QueueEntryInfo,
  RemoteJob,
  RemoteModuleInfo,
  RemoteSnapshotInfo,
  RemoteStatus,
} from "@squash/sdk/protocol";
import { errorText } from "../core/error-text.js";
import type { Config } from "../config.js";
import type { Captures } from "../core/captures.js";
import type { DomainEvent, Emit } from "../core/events.js";
import type { JobContext, JobPlan } from "../core/jobs.js";
import type { Modules } from "../core/modules.js";
import type { Kernel } from "../core/ports.js";
import type { Custody } from "../core/remote/custody.js";
import { SharedWork } from "../core/shared-work.js";
import type { Snapshots } from "../core/snapshots.js";
import type { DirectoryCatalog } from "../modules/catalog.js";
import type { ModuleFormat } from "../modules/module-name.js";
import type { Renewed } from "../s3/blobs.js";
import { BucketCare } from "./bucket-care.js";
import { openBucket, type BucketParts } from "./bucket-parts.js";
import { listSnapshots } from "./list-snapshots.js";
import { EphemeralHouse, removeSandbox } from "./ephemeral-house.js";
import { machineId } from "./machine-id.js";
import { OlderImages } from "./older-images.js";
import { pullOlderModule } from "./older-modules.js";
import { listModules } from "./list-modules.js";
import { olderSnapshots } from "./older-list.js";
import { PushQueue, type PushTask } from "./push-queue.js";
import { RemoteCatalog } from "./remote-catalog.js";
import { planRemoteJob } from "./remote-jobs.js";
import { RemoteModules } from "./remote-modules.js";
import { RemoteSnapshots, type RemoteSnapshotParts } from "./remote-snapshots.js";
import { RemovedModules } from "./removed-modules.js";
import { Sync, type Synced } from "./sync.js";

export interface RemoteOptions {
  readonly config: Config;
  readonly catalog: DirectoryCatalog;
  /** told of what the operator should know */
  readonly warn: (text: string) => void;
  readonly emit: Emit;
}

/** What is there once squashd has started. */
export interface RemoteWorld extends Omit<RemoteSnapshotParts, "bucket" | "dataDir" | "machine" | "older"> {
  readonly captures: Pick<Captures, "takeUnpacked">;
  readonly modules: Modules;
  readonly takes: Snapshots;
  /** told of a module that has come */
  readonly arrived: (name: string, format: ModuleFormat) => void;
  /** lists work that goes on in the list of jobs, and does it at once */
  readonly track: (plan: JobPlan) => Promise<void>;
}

interface Connected {
  readonly world: RemoteWorld;
  readonly snapshots: RemoteSnapshots;
  readonly sync: Sync;
}

/** Everything of squashd that has to do with the bucket. */
export class RemoteHouse {
  readonly #options: RemoteOptions;
  readonly #bucket: BucketParts;
  readonly #queue: PushQueue;
  readonly #removed: RemovedModules;
  readonly #modules: RemoteModules;
  readonly #older: OlderImages;
  readonly #care: BucketCare;
  readonly #ephemeral: EphemeralHouse | null;
  readonly #machine: string;
  readonly #closing = new AbortController();
  #connected: Connected | null = null;
  readonly #syncing = new SharedWork<Synced>();
  #timer: NodeJS.Timeout | null = null;
  #lastSync: string | null = null;
  #syncError: string | null = null;

  private constructor(
    options: RemoteOptions,
    parts: { bucket: BucketParts; removed: RemovedModules; ephemeral: EphemeralHouse | null; machine: string },
    queue: PushQueue,
  ) {
    this.#ephemeral = parts.ephemeral;
    this.#machine = parts.machine;
    this.#options = options;
    this.#bucket = parts.bucket;
    this.#removed = parts.removed;
    this.#queue = queue;
    this.#care = new BucketCare(parts.bucket);
    const { catalog, config } = options;
    const { dataDir } = config;
    const replace = (name: string, work: () => Promise<void>): Promise<void> =>
      this.#mustBeConnected().world.modules.replace(name, work);
    this.#older = new OlderImages({
      bucket: parts.bucket,
      dataDir,
      maxBytes: config.maxUploadMb * 1_048_576,
      marks: join(dirname(config.hostBinary), "free-marks.so"),
      captures: () => this.#mustBeConnected().world.captures,
    });
    this.#modules = new RemoteModules({
      catalog,
      bucket: parts.bucket,
      replace,
      pullOlder: (module, how, context) =>
        pullOlderModule(module, { catalog, dataDir, images: this.#older, replace }, how, context),
      arrived: (name, format) => this.#connected?.world.arrived(name, format),
    });
  }

  /** null where no bucket is configured. */
  static async open(options: RemoteOptions): Promise<RemoteHouse | null> {
    const bucket = await openBucket(options.config);
    if (bucket === null) return null;
    const removed = await RemovedModules.open(join(bucket.folder, "removed.json"));
    let house: RemoteHouse | null = null;
    const queue = await PushQueue.open({
      path: join(bucket.folder, "queue.json"),
      work: (task, signal) => house?.doTask(task, signal) ?? Promise.resolve(),
      report: options.warn,
    });
    const { leaseS, checkpointS, dataDir, ephemeral: isEphemeral } = options.config;
    const machine = await machineId(dataDir);
    const ephemeral =
      isEphemeral === "1" ? new EphemeralHouse({ ...options, machine, leaseS, checkpointS, bucket }) : null;
    house = new RemoteHouse(options, { bucket, removed, ephemeral, machine }, queue);
    return house;
  }

  /** The catalog of this machine, with what the bucket has besides. */
  catalog(): RemoteCatalog {
    return new RemoteCatalog(this.#options.catalog, (name) => this.#fetchModule(name));
  }

  /** Who keeps sandboxes in the bucket; null where they are of this machine alone. */
  custody(kernel: Kernel): Custody | null {
    return this.#ephemeral?.useKernel(kernel) ?? null;
  }

  /** Saves all sandboxes that are kept in the bucket and takes them down. Returns those that could not be saved, with the reasons. */
  async drain(): Promise<Map<string, string>> {
    if (this.#ephemeral === null || this.#connected === null) return new Map();
    return this.#ephemeral.drain(this.#options.config.drainS * 1_000);
  }

  /** Begins to work, once there is somebody to work for. */
  connect(world: RemoteWorld): void {
    const { catalog, config } = this.#options;
    const snapshots = new RemoteSnapshots({
      ...world,
      bucket: this.#bucket,
      dataDir: config.dataDir,
      machine: this.#machine,
      older: this.#older,
    });
    const sync = new Sync({
      catalog,
      sandboxes: world.sandboxes,
      bucket: this.#bucket,
      modules: this.#modules,
      snapshots,
      removed: this.#removed,
      push: {
        module: (name, context) => this.#pushModule(name, null, context),
        snapshot: (id, label, context) => this.#pushSnapshot(id, label, null, context),
      },
      isLeaving: (id, label) =>
        this.#queue.list().some(({ kind, subject }) => kind === "remove-snapshot" && subject === `${id}@${label}`),
    });
    this.#connected = { world, snapshots, sync };
    this.#ephemeral?.connect({
      sandboxes: world.sandboxes,
      snapshots: world.takes,
      remote: snapshots,
      push: (id, label, signal) => this.#pushSnapshot(id, label, null, { signal, progress: () => undefined }),
    });
    this.#queue.start();
    void this.#syncNow();
    if (config.syncIntervalS === 0) return;
    this.#timer = setInterval(() => void this.#syncNow(), config.syncIntervalS * 1_000);
    this.#timer.unref();
  }

  /** Hears of what happens to snapshots. */
  observe(event: DomainEvent): void {
    if (event.type === "snapshot.taken") {
      void this.#queue.add({ kind: "snapshot", id: event.sandbox, label: event.label });
    } else if (event.type === "snapshot.removed") {
      for (const label of event.labels) void this.#queue.add({ kind: "remove-snapshot", id: event.sandbox, label });
    }
  }

  /** A module was made, or replaced, here. */
  moduleChanged(name: string): void {
    void this.#removed.forget(name);
    void this.#queue.add({ kind: "module", name });
  }

  /** A module was removed here; the bucket keeps it. */
  async moduleRemoved(name: string, sha256: string | null): Promise<void> {
    if (sha256 !== null) await this.#removed.add(name, sha256);
  }

  /** Sends a snapshot and waits until the bucket has it. */
  async durable(id: string, label: string, signal: AbortSignal): Promise<void> {
    await this.#queue.addAndWait({ kind: "snapshot", id, label }, signal);
  }

  /** Fetches a snapshot that a sandbox does not have here. Throws `snapshot_not_found`. */
  async fetchSnapshot(id: string, label: string, signal: AbortSignal): Promise<void> {
    const { world, snapshots } = this.#mustBeConnected();
    await world.track({
      kind: "pull",
      module: `${id}@${label}`,
      made: () => [],
      run: (context) => snapshots.pull(id, label, { ...context, signal: AbortSignal.any([context.signal, signal]) }),
    });
  }

  plan(job: RemoteJob): JobPlan {
    const { world, snapshots } = this.#mustBeConnected();
    return planRemoteJob(job, {
      sandboxes: world.sandboxes,
      bucket: this.#bucket,
      modules: this.#modules,
      snapshots,
      care: this.#care,
      sync: (scope, context) => this.#sync(scope, context),
      push: {
        module: (name, renewed, context) => this.#pushModule(name, renewed, context),
        snapshot: (id, label, renewed, context) => this.#pushSnapshot(id, label, renewed, context),
      },
      forgetRemoved: (name) => this.#removed.forget(name),
    });
  }

  status(): RemoteStatus {
    const { s3Bucket, s3Endpoint, s3Prefix, s3KeyFile } = this.#options.config;
    return {
      bucket: s3Bucket,
      endpoint: s3Endpoint === "" ? null : s3Endpoint,
      prefix: s3Prefix,
      encrypted: s3KeyFile !== "",
      queued: this.#queue.length,
      last_sync: this.#lastSync,
      sync_error: this.#syncError,
    };
  }

  queue(): QueueEntryInfo[] {
    return this.#queue.list();
  }

  get counts(): { readonly queued: number; readonly sent: number; readonly failed: number } {
    return { queued: this.#queue.length, ...this.#queue.counts };
  }

  modules(signal: AbortSignal): Promise<RemoteModuleInfo[]> {
    return listModules(this.#bucket, this.#options.catalog, this.#modules, signal);
  }

  async snapshots(id: string | null, signal: AbortSignal): Promise<RemoteSnapshotInfo[]> {
    return [
      ...(await listSnapshots(this.#bucket.snapshots, id, signal)),
      ...(await olderSnapshots(this.#bucket.older, id, signal)),
    ];
  }

  /** Takes a snapshot, all of a sandbox, or a module out of the bucket; what is here stays. */
  async remove(
    what: { readonly module: string } | { readonly id: string; readonly label: string | null },
    signal: AbortSignal,
  ): Promise<void> {
    const { bucket, older, modules, snapshots } = this.#bucket;
    if ("module" in what || what.label !== null) await bucket.remove(await older.keysOf(what, signal), signal);
    if ("module" in what) return modules.remove(what.module, signal);
    const { id, label } = what;
    if (label !== null) return snapshots.remove(id, [label], signal);
    await (this.#ephemeral?.forget(id, signal) ?? removeSandbox(this.#bucket, id, signal));
  }

  async close(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#closing.abort();
    this.#ephemeral?.close();
    await this.#queue.close();
    await this.#syncing.close();
    await this.#bucket.bucket.close();
  }

  /** For the queue. */
  async doTask(task: PushTask, signal: AbortSignal): Promise<void> {
    const context = { signal, progress: () => undefined };
    if (task.kind === "module") return this.#pushModule(task.name, null, context);
    if (task.kind === "snapshot") return this.#pushSnapshot(task.id, task.label, null, context);
    if ((await this.#ephemeral?.mayLeave(task.id, task.label)) === false) return;
    await this.#bucket.snapshots.remove(task.id, [task.label], signal);
  }

  async #pushModule(name: string, renewed: Renewed | null, context: JobContext): Promise<void> {
    await this.#care.guarded(() => this.#modules.push(name, { renewed }, context), context.signal);
  }

  async #pushSnapshot(id: string, label: string, renewed: Renewed | null, context: JobContext): Promise<void> {
    const { snapshots } = this.#mustBeConnected();
    await this.#care.guarded((thorough) => snapshots.push(id, label, { thorough, renewed }, context), context.signal);
    await this.#ephemeral?.pushed(id, label);
  }

  async #fetchModule(name: string): Promise<void> {
    await this.#removed.forget(name);
    const run = (context: JobContext): Promise<void> => this.#modules.pull(name, { replace: false }, context);
    if (this.#connected === null) return run({ signal: this.#closing.signal, progress: () => undefined });
    await this.#connected.world.track({ kind: "pull", module: name, run });
  }

  #syncNow(): Promise<void> {
    const context = { signal: this.#closing.signal, progress: () => undefined };
    return this.#sync("all", context).then(
      ({ problems }) => {
        for (const problem of problems) this.#options.warn(`bucket: ${problem}`);
      },
      () => undefined, // it is in the status, and tried again
    );
  }

  /** One at a time: who wants all compared meanwhile gets the same, which goes on for as long as anybody wants it. */
  async #sync(scope: "all" | { readonly sandbox: string }, context: JobContext): Promise<Synced> {
    const { sync } = this.#mustBeConnected();
    if (scope !== "all") return sync.run(scope, context);
    return this.#syncing.run("the comparison with the bucket", context, (shared) => this.#syncAll(sync, shared));
  }

  async #syncAll(sync: Sync, context: JobContext): Promise<Synced> {
    try {
      const synced = await sync.run("all", context);
      this.#lastSync = new Date().toISOString();
      this.#syncError = synced.problems[0] ?? null;
      return synced;
    } catch (error) {
      if (!context.signal.aborted) this.#noteFailure(error);
      throw error;
    }
  }

  #noteFailure(error: unknown): void {
    const text = errorText(error);
    if (this.#syncError !== text) this.#options.warn(text);
    this.#syncError = text;
  }

  #mustBeConnected(): Connected {
    if (this.#connected === null)
      throw new SquashError("sandbox_not_ready", "Cannot use the bucket: squashd is still starting; try again");
    return this.#connected;
  }
}
