import { chmod, rm, stat } from "node:fs/promises";
import { SquashError } from "@squash/sdk/errors";
import type { Modules } from "../core/modules.js";
import type { ModuleUpload } from "../core/service.js";
import type { DirectoryCatalog } from "./catalog.js";
import { Cleanup } from "./cleanup.js";
import type { ModuleManifest } from "./manifest.js";
import { checkModuleName, type ModuleFormat } from "./module-name.js";
import { draftPath } from "./pack.js";
import { placeModule } from "./placing.js";
import { receiveFile } from "./receive.js";
import { checkImage } from "./superblock.js";

const maxAtOnce = 4;

/** Takes images that are sent. They appear whole, checked and with a manifest, or not at all. */
export class ModuleUploads {
  readonly #catalog: DirectoryCatalog;
  readonly #modules: Modules;
  readonly #maxBytes: number;
  #running = 0;

  constructor(catalog: DirectoryCatalog, modules: Modules, options: { readonly maxBytes: number }) {
    this.#catalog = catalog;
    this.#modules = modules;
    this.#maxBytes = options.maxBytes;
  }

  /** Returns the format of the image. Throws `module_exists`, `module_in_use`, `module_invalid`, and what `receiveFile` does. */
  async put(name: string, upload: ModuleUpload): Promise<ModuleFormat> {
    for (const each of [name, ...upload.requires, ...upload.conflicts]) checkModuleName(each);
    if (this.#running >= maxAtOnce)
      throw new SquashError(
        "job_limit",
        `Cannot take module "${name}": ${maxAtOnce} uploads run already; try again later`,
      );
    this.#running++;
    try {
      return await this.#catalog.reserve(name, "uploaded", () => this.#take(name, upload));
    } finally {
      this.#running--;
    }
  }

  async #take(name: string, upload: ModuleUpload): Promise<ModuleFormat> {
    const { directory } = this.#catalog;
    this.#refuseExisting(name, upload);
    await using cleanup = new Cleanup();
    const draft = draftPath(directory, `${name}.upload`);
    cleanup.defer(() => rm(draft, { force: true }));
    await receiveFile(upload.body, draft, { ...upload, maxBytes: this.#maxBytes });
    const format = await checkImage(draft, name);
    await chmod(draft, 0o644);
    upload.signal.throwIfAborted();
    const place = (): Promise<void> => this.#place(name, { draft, format, upload });
    if (upload.replace) await this.#modules.replace(name, place);
    else await this.#catalog.close(name, () => this.#refuseExisting(name, upload), place);
    await this.#catalog.digests.record(`${name}.${format}`, upload.sha256);
    return format;
  }

  async #place(
    name: string,
    image: { readonly draft: string; readonly format: ModuleFormat; readonly upload: ModuleUpload },
  ): Promise<void> {
    const { draft, format, upload } = image;
    const { directory } = this.#catalog;
    const file = `${name}.${format}`;
    const manifest: ModuleManifest = {
      schema: 1,
      name,
      built_at: new Date().toISOString(),
      builder: "upload",
      files: { [file]: { size: (await stat(draft)).size, sha256: upload.sha256 } },
      ...(upload.requires.length > 0 && { requires: upload.requires }),
      ...(upload.conflicts.length > 0 && { conflicts: upload.conflicts }),
    };
    await placeModule(directory, manifest, [{ draft, file }]);
  }

  #refuseExisting(name: string, { replace }: ModuleUpload): void {
    if (replace || this.#catalog.imagesOf(name).length === 0) return;
    const hint = "replace it (?replace=true, --replace) or choose another name";
    throw new SquashError("module_exists", `Cannot take module "${name}": there is one of that name; ${hint}`);
  }
}
