import { randomBytes } from "node:crypto";
import { SquashError } from "@squash/sdk/errors";
import type { JobRequest, ModuleInfo, RemoteJob } from "@squash/sdk/protocol";
import type { Config } from "./config.js";
import type { Captures } from "./core/captures.js";
import { Jobs, type JobPlan } from "./core/jobs.js";
import { Modules } from "./core/modules.js";
import type { Sandboxes } from "./core/sandboxes.js";
import type { JobService, ModuleService, ModuleUpload } from "./core/service.js";
import type { DirectoryCatalog } from "./modules/catalog.js";
import { planJob } from "./modules/job-kinds.js";
import type { JobWorld } from "./modules/job-plan.js";
import { sweepBuilders } from "./modules/job-preset.js";
import type { ModuleFormat } from "./modules/module-name.js";
import { sweepLeftovers } from "./modules/leftovers.js";
import { ModuleUploads } from "./modules/module-upload.js";
import type { SnapshotSource } from "./modules/promote.js";
import { takeTar } from "./modules/tar-upload.js";
import { trustModule } from "./modules/trust.js";

/** What is done with modules and snapshots in a bucket. */
interface Remote {
  plan(job: RemoteJob): JobPlan;
  /** told of a module that was made, or replaced */
  moduleChanged(name: string): void;
  moduleRemoved(name: string, sha256: string | null): Promise<void>;
}

interface HouseOptions {
  readonly config: Pick<Config, "dataDir" | "maxUploadMb" | "buildDirs" | "moduleFormat">;
  readonly snapshots: SnapshotSource;
  /** whether this kernel can mount erofs images */
  readonly canUseErofs: boolean;
  /** null where there is no bucket */
  readonly remote: Remote | null;
  /** told of what the operator should know */
  readonly warn: (text: string) => void;
  /** told of bugs that no caller learns of */
  readonly report: (error: unknown) => void;
}

/** Everything of squashd that makes, takes and removes modules. */
export class ModuleHouse implements ModuleService {
  readonly jobs: JobService;
  readonly #jobs: Jobs;
  readonly #world: JobWorld;
  readonly #makesTwins: boolean;
  readonly #catalog: DirectoryCatalog;
  readonly #modules: Modules;
  readonly #uploads: ModuleUploads;
  readonly #sandboxes: Sandboxes;
  readonly #options: HouseOptions;
  readonly #closing = new AbortController();

  constructor(
    catalog: DirectoryCatalog,
    { sandboxes, captures }: { readonly sandboxes: Sandboxes; readonly captures: Captures },
    options: HouseOptions,
  ) {
    const { dataDir, buildDirs, moduleFormat, maxUploadMb } = options.config;
    const maxBytes = maxUploadMb * 1_048_576;
    this.#catalog = catalog;
    this.#sandboxes = sandboxes;
    this.#modules = new Modules(catalog, sandboxes);
    this.#uploads = new ModuleUploads(catalog, this.#modules, { maxBytes });
    this.#options = options;
    this.#makesTwins = options.canUseErofs && moduleFormat !== "squashfs";
    const formats = moduleFormat === "squashfs" ? { formats: ["squashfs"] as const } : {};
    const { snapshots } = options;
    this.#world = { catalog, modules: this.#modules, sandboxes, captures, snapshots, dataDir, buildDirs, ...formats };
    const jobs = new Jobs({
      newId: () => randomBytes(6).toString("hex"),
      report: options.report,
      done: ({ kind, modules }) => {
        if (!isRemote(kind)) for (const name of modules) options.remote?.moduleChanged(name);
      },
    });
    this.#jobs = jobs;
    this.jobs = {
      start: async (request) => jobs.start(await this.#plan(request)),
      startFromTar: async (name, upload) => jobs.start(await takeTar(name, upload, { world: this.#world, maxBytes })),
      list: () => jobs.list(),
      get: (id) => jobs.get(id),
      watch: (id, listener) => jobs.watch(id, listener),
      remove: (id) => jobs.remove(id),
    };
  }

  /** Sweeps what a killed squashd left half-made, and begins to check the images that there are. */
  async start(): Promise<void> {
    await sweepLeftovers(this.#options.config.dataDir, { atStart: true });
    sweepBuilders(this.#sandboxes.all(), (id) => this.#sandboxes.destroy(id)).catch((error: unknown) =>
      this.#options.warn(`a sandbox that a builder has left cannot be destroyed: ${String(error)}`),
    );
    this.#check().catch((error: unknown) => this.#options.warn(`modules cannot be checked: ${String(error)}`));
  }

  /** Cancels what runs in the background. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#jobs.close();
  }

  list(): Promise<ModuleInfo[]> {
    return this.#modules.list();
  }

  get(name: string): Promise<ModuleInfo> {
    return this.#modules.get(name);
  }

  async remove(name: string): Promise<void> {
    const { sha256 } = await this.get(name);
    await this.#modules.remove(name);
    await this.#options.remote?.moduleRemoved(name, sha256);
  }

  /** Uses of modules, for who replaces them. */
  get uses(): Modules {
    return this.#modules;
  }

  /** A module has come from elsewhere. */
  arrived(name: string, format: ModuleFormat): void {
    if (format === "squashfs" && this.#makesTwins) void this.#makeTwin(name);
  }

  /** Does what somebody waits for, and lists it as a job. */
  track(plan: JobPlan): Promise<void> {
    return this.#jobs.track(plan);
  }

  async put(name: string, upload: ModuleUpload): Promise<ModuleInfo> {
    const format = await this.#uploads.put(name, upload);
    this.#options.remote?.moduleChanged(name);
    if (format === "squashfs" && this.#makesTwins) await this.#makeTwin(name);
    return this.get(name);
  }

  async trust(name: string): Promise<ModuleInfo> {
    await trustModule(this.#catalog, name);
    this.#options.remote?.moduleChanged(name);
    return this.get(name);
  }

  async #plan(request: JobRequest): Promise<JobPlan> {
    if (!isRemoteJob(request)) return planJob(request, this.#world);
    const { remote } = this.#options;
    if (remote !== null) return remote.plan(request);
    throw new SquashError("s3_off", `Cannot ${request.kind}: no bucket is configured; set SQUASH_S3_BUCKET`);
  }

  /** Without it the module works as well, and `sq module convert` makes it later. */
  async #makeTwin(name: string): Promise<void> {
    try {
      this.#jobs.start(await planJob({ kind: "convert", name, format: "erofs" }, this.#world));
    } catch (error) {
      this.#options.warn(`no erofs image of module "${name}" is made: ${String(error)}`);
    }
  }

  async #check(): Promise<void> {
    for (const [name, problem] of await this.#catalog.verify(this.#closing.signal))
      this.#options.warn(`module "${name}" cannot be used: ${problem}`);
  }
}

const remoteKinds: readonly string[] = ["push", "pull", "sync", "s3-verify", "s3-gc"] satisfies RemoteJob["kind"][];

function isRemote(kind: JobRequest["kind"]): boolean {
  return remoteKinds.includes(kind);
}

function isRemoteJob(request: JobRequest): request is RemoteJob {
  return isRemote(request.kind);
}
