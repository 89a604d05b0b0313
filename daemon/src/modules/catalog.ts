import { lstatSync, type BigIntStats } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import { errorText } from "../core/error-text.js";
import type { ModuleFacts, ModuleStore } from "../core/modules.js";
import type { ModuleCatalog, ModuleImage } from "../core/ports.js";
import { isModuleName } from "../core/validate.js";
import { Digests } from "./digests.js";
import { manifestFile, Manifests, type ModuleManifest } from "./manifest.js";
import { ModuleLocks } from "./module-locks.js";
import { checkedDefaults, defaultsInfo } from "./module-defaults.js";
import { checkModuleName, moduleFormats, nearNames, type ModuleFormat } from "./module-name.js";
import { forgetPlacing } from "./placing.js";

const customaryBase = "000-base-alpine";
const settledMs = 1_000;
/** a builder in another process replaces images first and the manifest right after */
const publishingMs = { step: 50, atMost: 2_000 };

interface FoundImage {
  readonly format: ModuleFormat;
  readonly stat: BigIntStats;
}

interface CatalogOptions {
  readonly defaultLayers: readonly string[];
  /** formats of images that this machine can use; others count as absent where a module has one of these */
  readonly formats?: readonly ModuleFormat[];
  /** which of a module's images is used; @default "auto": the erofs one unless it is older */
  readonly prefer?: ModuleFormat | "auto";
}

/**
 * The modules of a data directory: `modules/<name>.squashfs` and, quicker to read, `modules/<name>.erofs`, with `<name>.manifest.json`, which
 * is what makes an image trusted: only one that it lists, with the very digest, is used.
 */
export class DirectoryCatalog implements ModuleCatalog, ModuleStore {
  /** where the images are */
  readonly directory: string;
  readonly digests: Digests;
  readonly manifests: Manifests;
  readonly #defaultLayers: readonly string[];
  readonly #formats: readonly ModuleFormat[];
  readonly #prefer: ModuleFormat | "auto";
  readonly #locks = new ModuleLocks();
  #firstBase: { readonly name: string; readonly directoryMtimeMs: number } | null = null;

  constructor(dataDir: string, options: CatalogOptions) {
    this.directory = join(dataDir, "modules");
    this.digests = new Digests(this.directory, join(dataDir, "cache/verified.json"));
    this.manifests = new Manifests(this.directory);
    this.#defaultLayers = options.defaultLayers;
    this.#formats = options.formats ?? moduleFormats;
    this.#prefer = options.prefer ?? "auto";
  }

  /** Modules by name; each once, in the format that would be used. Files that cannot be used are left out, but not untrusted ones. */
  async list(): Promise<ModuleFacts[]> {
    return (await this.#names()).map((name) => this.#factsOf(name)).filter((facts) => facts !== null);
  }

  async facts(name: string): Promise<ModuleFacts> {
    checkModuleName(name);
    const facts = this.#factsOf(name);
    if (facts !== null) return facts;
    this.#choose(name); // throws where there is one that cannot be used
    throw await this.#notFound(name);
  }

  /**
   * Throws `invalid_request`, `module_not_found`, or `module_invalid` where the file is not a regular one or not that of the manifest. Reads
   * the image through only when this file was never checked before.
   */
  async resolve(name: string): Promise<ModuleImage> {
    checkModuleName(name);
    if (this.#locks.isClosed(name)) await this.#locks.opened(name);
    for (let waitedMs = 0; ; waitedMs += publishingMs.step) {
      try {
        return await this.#resolveNow(name);
      } catch (error) {
        if (!isSquashError(error) || error.code !== "module_invalid") throw error;
        if (waitedMs >= publishingMs.atMost || !this.#isSettling()) throw error;
      }
      await new Promise((done) => setTimeout(done, publishingMs.step));
    }
  }

  reserve<T>(name: string, what: string, work: () => Promise<T>): Promise<T> {
    checkModuleName(name);
    return this.#locks.reserve(name, what, work);
  }

  close<T>(name: string, check: () => void, work: () => Promise<T>): Promise<T> {
    return this.#locks.close(name, check, work);
  }

  /** The manifest goes first: without it the images are worthless, should the removal not come to its end. */
  async remove(name: string): Promise<void> {
    checkModuleName(name);
    await forgetPlacing(this.directory, name);
    for (const file of [manifestFile(name), ...moduleFormats.map((format) => `${name}.${format}`)])
      await rm(join(this.directory, file), { force: true });
  }

  /** Images of a module that are there, whatever they are. */
  imagesOf(name: string): ModuleFormat[] {
    return this.#candidates(name).map(({ format }) => format);
  }

  /** Checks all images, one after another, so that no create has to wait for it. Returns what is wrong with which. */
  async verify(signal: AbortSignal): Promise<Map<string, string>> {
    const problems = new Map<string, string>();
    for (const name of await this.#names()) {
      if (signal.aborted) break;
      try {
        await this.#resolveNow(name);
      } catch (error) {
        problems.set(name, errorText(error));
      }
    }
    return problems;
  }

  /** The configured names, else the customary base, else the first base there is. Throws `module_not_found`. */
  async defaultLayers(): Promise<readonly string[]> {
    if (this.#defaultLayers.length > 0) return this.#defaultLayers;
    if (newest(this.#candidates(customaryBase)) !== null) return [customaryBase];
    const base = await this.#findFirstBase();
    if (base !== null) return [base];
    throw new SquashError(
      "module_not_found",
      `Cannot choose a base module: "${this.directory}" has none; make one with "sq mkbase debian"`,
    );
  }

  async #findFirstBase(): Promise<string | null> {
    const directoryMtimeMs = lstatSync(this.directory, { throwIfNoEntry: false })?.mtimeMs ?? 0;
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

  async #resolveNow(name: string): Promise<ModuleImage> {
    const found = this.#choose(name);
    if (found === null) throw await this.#notFound(name);
    const { format, stat } = found;
    const manifest = this.manifests.of(name);
    const listed = listedIn(manifest, name, format);
    const file = `${name}.${format}`;
    // a digest that is known takes no turn of the event loop
    const sha256 = this.digests.known(file, stat) ?? (await this.digests.of(file, stat));
    if (sha256 !== listed.sha256) throw untrusted(name, `its sha-256 is ${sha256}, its manifest says ${listed.sha256}`);
    return {
      name,
      image: `modules/${file}`,
      format,
      identity: `${stat.ino}-${stat.size}-${stat.mtimeMs}`,
      requires: manifest?.requires ?? [],
      conflicts: manifest?.conflicts ?? [],
      ...(manifest?.defaults === undefined ? {} : { defaults: checkedDefaults(manifest.defaults) }),
    };
  }

  /** The image that is used. Throws `module_invalid` where none can be; null where there is no image at all. */
  #choose(name: string): FoundImage | null {
    const candidates = this.#candidates(name);
    const found = this.#preferred(candidates.filter(({ format }) => this.#formats.includes(format)));
    if (found === null && candidates.length > 0) throw this.#unusable(name);
    if (found?.stat.isFile() === false) {
      const { stat, format } = found;
      const kind = stat.isSymbolicLink() ? "a symbolic link" : stat.isDirectory() ? "a directory" : "a special file";
      throw new SquashError(
        "module_invalid",
        `Cannot use module "${name}": "modules/${name}.${format}" is ${kind}, needed is a regular file`,
      );
    }
    return found;
  }

  #factsOf(name: string): ModuleFacts | null {
    const usable = this.#candidates(name).filter(({ format, stat }) => stat.isFile() && this.#formats.includes(format));
    const found = this.#preferred(usable);
    if (found === null) return null;
    const { format, stat } = found;
    const facts = {
      name,
      size: Number(stat.size),
      location: "local" as const,
      format,
      formats: usable.map((each) => each.format),
      sha256: null,
      created: null,
      source: null,
      requires: [],
      conflicts: [],
      defaults: null,
      problem: null,
    };
    try {
      const manifest = this.manifests.of(name);
      const { sha256 } = listedIn(manifest, name, format);
      const known = this.digests.known(`${name}.${format}`, stat) ?? sha256;
      const problem = known === sha256 ? null : untrusted(name, `its sha-256 is ${known}, its manifest says ${sha256}`);
      return {
        ...facts,
        sha256,
        created: manifest?.built_at ?? null,
        source: manifest?.builder ?? null,
        requires: [...(manifest?.requires ?? [])],
        conflicts: [...(manifest?.conflicts ?? [])],
        defaults: manifest?.defaults === undefined ? null : defaultsInfo(manifest.defaults),
        problem: problem?.message ?? null,
      };
    } catch (error) {
      if (!isSquashError(error)) throw error;
      return { ...facts, problem: error.message };
    }
  }

  /** Waits for the disk only when the kernel does not know the files, and then for microseconds; awaiting would take ten times as long. */
  #candidates(name: string): FoundImage[] {
    const found: FoundImage[] = [];
    for (const format of moduleFormats) {
      const path = join(this.directory, `${name}.${format}`);
      const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
      if (stat !== undefined) found.push({ format, stat });
    }
    return found;
  }

  #preferred(candidates: readonly FoundImage[]): FoundImage | null {
    return candidates.find(({ format }) => format === this.#prefer) ?? newest(candidates);
  }

  /** Whether somebody changed the directory so lately that he may not have come to the end of it. */
  #isSettling(): boolean {
    const stat = lstatSync(this.directory, { throwIfNoEntry: false });
    return stat !== undefined && Math.abs(Date.now() - stat.mtimeMs) < settledMs;
  }

  async #names(): Promise<string[]> {
    const names = new Set<string>();
    for (const file of await filesOf(this.directory)) {
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

/** Throws `module_invalid` where the manifest does not vouch for that image. */
function listedIn(manifest: ModuleManifest | null, name: string, format: ModuleFormat): { readonly sha256: string } {
  const file = `${name}.${format}`;
  if (manifest === null) throw untrusted(name, `there is no "modules/${manifestFile(name)}" that says what it is`);
  const listed = manifest.files[file];
  if (listed === undefined) throw untrusted(name, `"modules/${manifestFile(name)}" does not list "${file}"`);
  return listed;
}

function untrusted(name: string, what: string): SquashError {
  const hint = `if you put it there and trust it, run "sq module trust ${name}"; otherwise replace it`;
  return new SquashError("module_invalid", `Cannot use module "${name}": ${what}; ${hint}`, {
    details: { module: name },
  });
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
