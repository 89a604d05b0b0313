import { randomBytes } from "node:crypto";
import type { ModuleInfo } from "@squash/sdk/protocol";
import type { Config } from "./config.js";
import type { Captures } from "./core/captures.js";
import { Jobs } from "./core/jobs.js";
import { Modules } from "./core/modules.js";
import type { Sandboxes } from "./core/sandboxes.js";
import type { JobService, ModuleService, ModuleUpload } from "./core/service.js";
import type { DirectoryCatalog } from "./modules/catalog.js";
import { planJob } from "./modules/job-kinds.js";
import type { JobWorld } from "./modules/job-plan.js";
import { sweepBuilders } from "./modules/job-preset.js";
import { sweepLeftovers } from "./modules/leftovers.js";
import { ModuleUploads } from "./modules/module-upload.js";
import type { SnapshotSource } from "./modules/promote.js";
import { takeTar } from "./modules/tar-upload.js";
import { trustModule } from "./modules/trust.js";

interface HouseOptions {
  readonly config: Pick<Config, "dataDir" | "maxUploadMb" | "buildDirs" | "moduleFormat">;
  readonly snapshots: SnapshotSource;
  /** whether this kernel can mount erofs images */
  readonly canUseErofs: boolean;
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
    const jobs = new Jobs({ newId: () => randomBytes(6).toString("hex"), report: options.report });
    this.#jobs = jobs;
    this.jobs = {
      start: async (request) => jobs.start(await planJob(request, this.#world)),
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

  remove(name: string): Promise<void> {
    return this.#modules.remove(name);
  }

  async put(name: string, upload: ModuleUpload): Promise<ModuleInfo> {
    const format = await this.#uploads.put(name, upload);
    if (format === "squashfs" && this.#makesTwins) await this.#makeTwin(name);
    return this.get(name);
  }

  async trust(name: string): Promise<ModuleInfo> {
    await trustModule(this.#catalog, name);
    return this.get(name);
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
