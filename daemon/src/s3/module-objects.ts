import { readFile } from "node:fs/promises";
import { SquashError } from "@squash/sdk/errors";
import { invalidObject } from "../core/remote/invalid-object.js";
import type { ObjectStore } from "../core/remote/object-store.js";
import { isModuleName } from "../core/validate.js";
import { writeAtomically } from "../store/atomic-file.js";
import { olderManifest } from "./older-manifest.js";
import type { SealedJson } from "./sealed-json.js";
import { inParallel } from "./pool.js";
import { isSha256, parseStoredFile, type StoredFile } from "./stored-file.js";

const maxBytes = 16 * 1_048_576;
const suffix = ".manifest.json";
const folder = "modules/";
/** manifests that are read at a time */
const parallel = 16;

/** A module in the bucket. */
export interface ModuleObject {
  readonly name: string;
  /** the format of its image */
  readonly format: "squashfs" | "erofs";
  readonly file: StoredFile & { readonly sha256: string };
  /** its manifest as it was on the disk of who sent it, which may be anything */
  readonly manifest: Readonly<Record<string, unknown>>;
}

/** What is known of one without reading it anew. */
export interface KnownModule {
  readonly name: string;
  readonly format: "squashfs" | "erofs";
  readonly size: number;
  readonly sha256: string;
}

interface Known extends KnownModule {
  readonly etag: string;
}

/** The modules of a bucket: `modules/<name>.manifest.json`, which says where the image's bytes are. */
export class ModuleObjects {
  readonly #store: ObjectStore;
  readonly #json: SealedJson;
  readonly #cachePath: string;
  #known: Map<string, Known> | null = null;
  #isChanged = false;

  /** `cachePath` is a file that keeps what was read once. */
  constructor(store: ObjectStore, json: SealedJson, cachePath: string) {
    this.#store = store;
    this.#json = json;
    this.#cachePath = cachePath;
  }

  /** null where there is none, also where an older daemon has its own manifest in that place. Throws `s3_object_invalid`. */
  async read(name: string, signal: AbortSignal): Promise<(ModuleObject & { readonly etag: string }) | null> {
    const key = moduleKey(name);
    try {
      const found = await this.#json.read(key, { maxBytes, signal });
      return found === null ? null : { ...parse(key, name, found.value), etag: found.etag };
    } catch (error) {
      const isInvalid = error instanceof SquashError && error.code === "s3_object_invalid";
      if (isInvalid && (await this.#isOlder(key, signal))) return null;
      throw error;
    }
  }

  /** Of what is there, which may be damaged; null where there is nothing. */
  async etag(name: string, signal: AbortSignal): Promise<string | null> {
    return (await this.#store.head(moduleKey(name), signal))?.etag ?? null;
  }

  /**
   * Writes a module's manifest, whose image must be there; in the place of the one that had `etag`, else only where there is none. Whether it
   * was done.
   */
  async write(
    module: ModuleObject,
    options: { readonly etag: string | null; readonly signal: AbortSignal },
  ): Promise<boolean> {
    const { etag, signal } = options;
    const condition = etag === null ? ({ kind: "absent" } as const) : ({ kind: "same", etag } as const);
    const { name, format, file, manifest } = module;
    const written = await this.#json.write(
      moduleKey(name),
      { schema: 1, name, format, file, manifest },
      { condition, signal },
    );
    if (written === null) return false;
    const known = (this.#known ??= await readCache(this.#cachePath));
    known.set(name, { name, format, size: file.size, sha256: file.sha256, etag: written.etag });
    this.#isChanged = true; // kept by the next list: a file for each would be too many
    return true;
  }

  async remove(name: string, signal: AbortSignal): Promise<void> {
    await this.#store.remove([moduleKey(name)], signal);
  }

  /** Names of all that there are. */
  async *names(signal: AbortSignal): AsyncGenerator<string> {
    for await (const { key } of this.#store.list(folder, signal)) {
      const name = nameOf(key);
      if (name !== null) yield name;
    }
  }

  /** All that there are; only those are read that are new. What cannot be read is told with the reason. */
  async list(
    signal: AbortSignal,
  ): Promise<{ readonly modules: KnownModule[]; readonly problems: Map<string, SquashError> }> {
    const known = (this.#known ??= await readCache(this.#cachePath));
    const modules: KnownModule[] = [];
    const problems = new Map<string, SquashError>();
    const unread: string[] = [];
    const seen = new Set<string>();
    for await (const { key, etag } of this.#store.list(folder, signal)) {
      const name = nameOf(key);
      if (name === null) continue;
      seen.add(name);
      const before = known.get(name);
      if (before?.etag === etag) modules.push(before);
      else unread.push(name);
    }
    await inParallel(unread, parallel, async (name) => {
      try {
        const one = await this.#learn(name, known, signal);
        if (one !== null) modules.push(one);
      } catch (error) {
        if (!(error instanceof SquashError) || error.code !== "s3_object_invalid") throw error;
        problems.set(name, error);
      }
    });
    for (const name of known.keys()) if (!seen.has(name)) this.#isChanged = known.delete(name);
    if (this.#isChanged) await this.#save(known);
    return { modules, problems };
  }

  async #learn(name: string, known: Map<string, Known>, signal: AbortSignal): Promise<Known | null> {
    this.#isChanged = true;
    known.delete(name);
    const found = await this.read(name, signal);
    if (found === null) return null;
    const { format, file, etag } = found;
    const one = { name, format, size: file.size, sha256: file.sha256, etag };
    known.set(name, one);
    return one;
  }

  async #isOlder(key: string, signal: AbortSignal): Promise<boolean> {
    const { body } = (await this.#store.read(key, { maxBytes, signal })) ?? {};
    return body !== undefined && olderManifest(body) !== null;
  }

  /** A cache that cannot be written costs time at the next start, and nothing else. */
  async #save(known: ReadonlyMap<string, Known>): Promise<void> {
    const text = `${JSON.stringify({ version: 1, modules: [...known.values()] })}\n`;
    this.#isChanged = false;
    await writeAtomically(this.#cachePath, text, { durable: false }).catch(() => undefined);
  }
}

/** Of its manifest. */
export function moduleKey(name: string): string {
  return `${folder}${name}${suffix}`;
}

function nameOf(key: string): string | null {
  const name = key.slice(folder.length, -suffix.length);
  return key.endsWith(suffix) && isModuleName(name) ? name : null;
}

function parse(key: string, name: string, value: Readonly<Record<string, unknown>>): ModuleObject {
  const { schema, name: own, format, file, manifest } = value;
  if (schema !== 1 || own !== name) throw invalidObject(key, `it is not that of module "${name}"`);
  if (format !== "squashfs" && format !== "erofs") throw invalidObject(key, "it does not say the format of its image");
  if (typeof manifest !== "object" || manifest === null) throw invalidObject(key, "it has no manifest of the module");
  const { sha256, ...rest } = parseStoredFile(file, key);
  if (!isSha256(sha256)) throw invalidObject(key, "it does not say the digest of its image");
  return { name, format, file: { ...rest, sha256 }, manifest: manifest as Record<string, unknown> };
}

/** Whatever is no cache of this version counts as none. */
async function readCache(path: string): Promise<Map<string, Known>> {
  const known = new Map<string, Known>();
  try {
    const { version, modules } = JSON.parse(await readFile(path, "utf8")) as { version?: unknown; modules?: unknown };
    if (version !== 1 || !Array.isArray(modules)) return known;
    for (const one of modules as Partial<Known>[])
      if (typeof one.name === "string" && typeof one.etag === "string" && isSha256(one.sha256))
        known.set(one.name, one as Known);
  } catch {
    // none yet, or damaged: it is made again
  }
  return known;
}
