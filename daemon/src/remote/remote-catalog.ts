import { isSquashError } from "@squash/sdk/errors";
import type { ModuleStore } from "../core/modules.js";
import type { ModuleCatalog, ModuleImage } from "../core/ports.js";

/** A catalog that fetches from the bucket what is not here. */
export class RemoteCatalog implements ModuleCatalog, Pick<ModuleStore, "list"> {
  readonly #local: ModuleCatalog & Pick<ModuleStore, "list">;
  readonly #fetch: (name: string) => Promise<void>;

  /** `fetch` throws `module_not_found` where the bucket does not have it either. */
  constructor(local: ModuleCatalog & Pick<ModuleStore, "list">, fetch: (name: string) => Promise<void>) {
    this.#local = local;
    this.#fetch = fetch;
  }

  async resolve(name: string): Promise<ModuleImage> {
    try {
      return await this.#local.resolve(name);
    } catch (missing) {
      if (!isSquashError(missing) || missing.code !== "module_not_found") throw missing;
      await this.#fetch(name).catch((error: unknown) => {
        // what is near the name here helps more than that it is not there
        throw isSquashError(error) && error.code === "module_not_found" ? missing : error;
      });
      return this.#local.resolve(name);
    }
  }

  defaultLayers(): Promise<readonly string[]> {
    return this.#local.defaultLayers();
  }

  list(): ReturnType<ModuleStore["list"]> {
    return this.#local.list();
  }
}
