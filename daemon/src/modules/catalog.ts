import { lstatSync, type Stats } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { ModuleInfo } from "@squash/sdk/protocol";
import type { ModuleCatalog, ModuleImage } from "../core/ports.js";
import type { ModuleSource } from "../core/service.js";
import { readDefaults } from "./module-defaults.js";
import { checkModuleName, isModuleName, moduleFormats, nearNames, type ModuleFormat } from "./module-name.js";

const customaryBase = "000-base-alpine";
const settledMs = 1_000;

interface FoundImage {
  readonly format: ModuleFormat;
  readonly stat: Stats;
}

interface CatalogOptions {
  readonly defaultLayers: readonly string[];
  /** formats of images that this machine can use; others count as absent where a module has one of these */
  readonly formats?: readonly ModuleFormat[];
}

/** The modules of a data directory: `modules/<name>.squashfs` and, quicker to read, `modules/<name>.erofs`. */
export class DirectoryCatalog implements ModuleCatalog, ModuleSource {
  readonly #directory: string;
  readonly #defaultLayers: readonly string[];
  readonly #formats: readonly ModuleFormat[];
  #firstBase: { readonly name: string; readonly directoryMtimeMs: number } | null = null;

  constructor(dataDir: string, options: CatalogOptions) {
    this.#directory = join(dataDir, "modules");
    this.#defaultLayers = options.defaultLayers;
    this.#formats = options.formats ?? moduleFormats;
  }

  /** Modules by name; each once, in the format that would be used. Files that cannot be used are left out. */
  async list(): Promise<ModuleInfo[]> {
    const modules: ModuleInfo[] = [];
    for (const name of await this.#names()) {
      const usable = this.#candidates(name).filter(
        ({ format, stat }) => stat.isFile() && this.#formats.includes(format),
      );
      const found = newest(usable);
      if (found !== null) modules.push({ name, size: found.stat.size, location: "local", format: found.format });
    }
    return modules;
  }

  /** Throws `invalid_request`, `module_not_found` or, where the file is not a regular one, `module_invalid`. */
  async resolve(name: string): Promise<ModuleImage> {
    checkModuleName(name);
    const candidates = this.#candidates(name);
    const found = newest(candidates.filter(({ format }) => this.#formats.includes(format)));
    if (found === null) throw candidates.length > 0 ? this.#unusable(name) : await this.#notFound(name);
    const { format, stat } = found;
    const image = `modules/${name}.${format}`;
    if (!stat.isFile()) {
      const kind = stat.isSymbolicLink() ? "a symbolic link" : stat.isDirectory() ? "a directory" : "a special file";
      throw new SquashError(
        "module_invalid",
        `Cannot use module "${name}": "${image}" is ${kind}, needed is a regular file`,
      );
    }
    const identity = `${stat.ino}-${stat.size}-${Math.floor(stat.mtimeMs)}`;
    const defaults = await readDefaults(this.#directory, name);
    return { name, image, format, identity, ...(defaults === null ? {} : { defaults }) };
  }

  /** The configured names, else the customary base, else the first base there is. Throws `module_not_found`. */
  async defaultLayers(): Promise<readonly string[]> {
    if (this.#defaultLayers.length > 0) return this.#defaultLayers;
    if (newest(this.#candidates(customaryBase)) !== null) return [customaryBase];
    const base = await this.#findFirstBase();
    if (base !== null) return [base];
    throw new SquashError(
      "module_not_found",
      `Cannot choose a base module: "${this.#directory}" has none; make one with "sq mkbase debian"`,
    );
  }

  async #findFirstBase(): Promise<string | null> {
    const directoryMtimeMs = lstatSync(this.#directory, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    if (this.#firstBase?.directoryMtimeMs === directoryMtimeMs) return this.#firstBase.name;
    const isBase = (name: string): boolean => name.startsWith("000-");
    const usable = (await this.list()).map(({ name }) => name).find(isBase);
    // where no base can be used, one that is there: resolving it says what is wrong with it
    const base = usable ?? (await this.#names()).find(isBase);
    if (base === undefined) return null;
    // a change within the clock tick of the one before does not show, hence only a settled directory is remembered
    if (Date.now() - directoryMtimeMs > settledMs) this.#firstBase = { name: base, directoryMtimeMs };
    return base;
  }

  /** Waits for the disk only when the kernel does not know the files, and then for microseconds; awaiting would take ten times as long. */
  #candidates(name: string): FoundImage[] {
    const found: FoundImage[] = [];
    for (const format of moduleFormats) {
      const stat = lstatSync(join(this.#directory, `${name}.${format}`), { throwIfNoEntry: false });
      if (stat !== undefined) found.push({ format, stat });
    }
    return found;
  }

  async #names(): Promise<string[]> {
    const names = new Set<string>();
    for (const file of await filesOf(this.#directory)) {
      const match = /^(.+)\.(?:squashfs|erofs)$/.exec(file);
      if (match?.[1] !== undefined && isModuleName(match[1])) names.add(match[1]);
    }
    return [...names].toSorted();
  }

  #unusable(name: string): SquashError {
    const hint = `this kernel needs an image of the format ${this.#formats.join(" or ")}`;
    const message = `Cannot use module "${name}": ${hint}; make one beside it: sq mkbase makes both, of your own files mkfs.erofs does`;
    return new SquashError("module_invalid", message, { details: { module: name, formats: this.#formats } });
  }

  async #notFound(name: string): Promise<SquashError> {
    const near = nearNames(name, await this.#names());
    const hint = near.length === 0 ? "no name is near it" : `near names: ${near.join(", ")}`;
    const message = `Cannot find module "${name}": ${hint}; run "sq modules" to see all or "sq mkbase" to make a base`;
    return new SquashError("module_not_found", message, { details: { module: name, near } });
  }
}

/** The erofs image unless the squashfs one was made after it. */
function newest(candidates: readonly FoundImage[]): FoundImage | null {
  const [first, second] = candidates;
  if (first === undefined) return null;
  return second !== undefined && second.stat.mtimeMs >= first.stat.mtimeMs ? second : first;
}

async function filesOf(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
