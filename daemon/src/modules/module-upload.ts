import { chmod, rm, stat } from "node:fs/promises";
import { SquashError } from "@squash/sdk/errors";
import type { Modules } from "../core/modules.js";
import type { ModuleUpload } from "../core/service.js";
import type { DirectoryCatalog } from "./catalog.js";
import { Cleanup } from "./cleanup.js";
import type { ModuleManifest } from "./manifest.js";
import { aboutOf, type ModuleAbout } from "./module-about.js";
import { checkModuleName, type ModuleFormat } from "./module-name.js";
import { readTrailer } from "./module-trailer.js";
import { draftPath } from "./pack.js";
import { placeModule } from "./placing.js";
import { receiveFile } from "./receive.js";
import { checkImage } from "./superblock.js";

const maxAtOnce = 4;

interface Draft {
  readonly draft: string;
  readonly format: ModuleFormat;
  readonly upload: ModuleUpload;
  /** what the image says about itself */
  readonly about: ModuleAbout | null;
}

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
    const { requires = [], conflicts = [] } = upload;
    for (const each of [name, ...requires, ...conflicts]) checkModuleName(each);
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
    const { format } = await checkImage(draft, name);
    const about = await readTrailer(draft, name);
    await chmod(draft, 0o644);
    upload.signal.throwIfAborted();
    const place = (): Promise<void> => this.#place(name, { draft, format, upload, about });
    if (upload.replace) await this.#modules.replace(name, place);
    else await this.#catalog.close(name, () => this.#refuseExisting(name, upload), place);
    await this.#catalog.digests.record(`${name}.${format}`, upload.sha256);
    return format;
  }

  async #place(name: string, image: Draft): Promise<void> {
    const { draft, format, upload, about } = image;
    const { directory } = this.#catalog;
    const file = `${name}.${format}`;
    const manifest: ModuleManifest = {
      schema: 1,
      built_at: new Date().toISOString(),
      files: { [file]: { size: (await stat(draft)).size, sha256: upload.sha256 } },
      ...aboutOf({ builder: "upload", ...about, ...saidBy(upload), name }),
    };
    await placeModule(directory, manifest, [{ draft, file }]);
  }

  #refuseExisting(name: string, { replace }: ModuleUpload): void {
    if (replace || this.#catalog.imagesOf(name).length === 0) return;
    const hint = "replace it (?replace=true, --replace) or choose another name";
    throw new SquashError("module_exists", `Cannot take module "${name}": there is one of that name; ${hint}`);
  }
}

/** What the sender says counts more than what the image does, also that there is nothing. */
function saidBy({ requires, conflicts }: ModuleUpload): Pick<ModuleAbout, "requires" | "conflicts"> {
  return { ...(requires !== undefined && { requires }), ...(conflicts !== undefined && { conflicts }) };
}
