import type { ModuleInfo } from "@squash/sdk/protocol";
import type { Config } from "./config.js";
import { Modules } from "./core/modules.js";
import type { Sandboxes } from "./core/sandboxes.js";
import type { ModuleService, ModuleUpload } from "./core/service.js";
import type { DirectoryCatalog } from "./modules/catalog.js";
import { sweepLeftovers } from "./modules/leftovers.js";
import { ModuleUploads } from "./modules/module-upload.js";
import { trustModule } from "./modules/trust.js";

interface HouseOptions {
  readonly config: Pick<Config, "dataDir" | "maxUploadMb">;
  /** told of what the operator should know */
  readonly warn: (text: string) => void;
}

/** Everything of squashd that makes, takes and removes modules. */
export class ModuleHouse implements ModuleService {
  readonly #catalog: DirectoryCatalog;
  readonly #modules: Modules;
  readonly #uploads: ModuleUploads;
  readonly #options: HouseOptions;
  readonly #closing = new AbortController();

  constructor(catalog: DirectoryCatalog, sandboxes: Sandboxes, options: HouseOptions) {
    this.#catalog = catalog;
    this.#modules = new Modules(catalog, sandboxes);
    this.#uploads = new ModuleUploads(catalog, this.#modules, { maxBytes: options.config.maxUploadMb * 1_048_576 });
    this.#options = options;
  }

  /** Sweeps what a killed squashd left half-made, and begins to check the images that there are. */
  async start(): Promise<void> {
    await sweepLeftovers(this.#options.config.dataDir, { atStart: true });
    this.#check().catch((error: unknown) => this.#options.warn(`modules cannot be checked: ${String(error)}`));
  }

  /** Lets go of what runs in the background. */
  close(): Promise<void> {
    this.#closing.abort();
    return Promise.resolve();
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
    await this.#uploads.put(name, upload);
    return this.get(name);
  }

  async trust(name: string): Promise<ModuleInfo> {
    await trustModule(this.#catalog, name);
    return this.get(name);
  }

  async #check(): Promise<void> {
    for (const [name, problem] of await this.#catalog.verify(this.#closing.signal))
      this.#options.warn(`module "${name}" cannot be used: ${problem}`);
  }
}
