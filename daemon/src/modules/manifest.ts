import { lstatSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { writeAtomically } from "../store/atomic-file.js";
import { namesProblem, type ModuleAbout } from "./module-about.js";
import { moduleFormats } from "./module-name.js";

const maxBytes = 1_048_576;

export interface ImageFile {
  readonly size: number;
  /** 64 hexadecimal digits */
  readonly sha256: string;
}

/** `modules/<name>.manifest.json`: what was built. An image is mounted only when its manifest lists it. Unknown fields are kept. */
export interface ModuleManifest extends ModuleAbout {
  readonly schema: 1;
  readonly built_at: string;
  /** by file name */
  readonly files: Readonly<Record<string, ImageFile>>;
}

export function manifestFile(name: string): string {
  return `${name}.manifest.json`;
}

/** Replaces a module's manifest in one step, durably. */
export async function writeManifest(directory: string, manifest: ModuleManifest): Promise<void> {
  const text = `${JSON.stringify(manifest, null, 2)}\n`;
  await writeAtomically(join(directory, manifestFile(manifest.name)), text, { durable: true, mode: 0o644 });
}

/** Reads a manifest's text. Throws `module_invalid` for what is none of this module. */
export function parseManifest(name: string, text: string): ModuleManifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw damaged(name, "is not JSON", cause);
  }
  if (typeof value !== "object" || value === null) throw damaged(name, "is not an object");
  const { schema, name: own, files, built_at, builder } = value as Partial<ModuleManifest>;
  if (schema !== 1) throw damaged(name, `has schema ${JSON.stringify(schema)}, not 1`);
  if (own !== name) throw damaged(name, `is of module ${JSON.stringify(own)}`);
  if (typeof built_at !== "string" || typeof builder !== "string") throw damaged(name, "does not say who made it when");
  const isListed =
    typeof files === "object" && Object.entries(files).every(([file, image]) => isImage(name, file, image));
  if (!isListed) throw damaged(name, "has no list of files with their sizes and sha-256");
  const problem = namesProblem(value);
  if (problem !== null) throw damaged(name, problem);
  return value as ModuleManifest;
}

/** The manifests of a directory of modules, each read again only when its file is another one. */
export class Manifests {
  readonly #directory: string;
  readonly #known = new Map<string, { readonly identity: string; readonly manifest: ModuleManifest }>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** null where there is none. Throws `module_invalid`. Waits for the disk only when the kernel does not know the file. */
  of(name: string): ModuleManifest | null {
    const path = join(this.#directory, manifestFile(name));
    const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined) {
      this.#known.delete(name);
      return null;
    }
    const identity = `${stat.ino}-${stat.size}-${stat.mtimeNs}-${stat.ctimeNs}`;
    const known = this.#known.get(name);
    if (known?.identity === identity) return known.manifest;
    if (!stat.isFile()) throw damaged(name, "is no regular file");
    if (stat.size > maxBytes) throw damaged(name, `is larger than ${maxBytes} bytes`);
    const manifest = parseManifest(name, readFileSync(path, "utf8"));
    this.#known.set(name, { identity, manifest });
    return manifest;
  }
}

function isImage(name: string, file: string, image: unknown): boolean {
  const { size, sha256 } = (image ?? {}) as Partial<ImageFile>;
  const isOwn = moduleFormats.some((format) => file === `${name}.${format}`);
  return isOwn && Number.isSafeInteger(size) && typeof sha256 === "string" && /^[0-9a-f]{64}$/.test(sha256);
}

function damaged(name: string, what: string, cause?: unknown): SquashError {
  return new SquashError(
    "module_invalid",
    `Cannot use module "${name}": "modules/${manifestFile(name)}" ${what}; run "sq module trust ${name}" to make a new one of the images as they are`,
    { cause, details: { module: name } },
  );
}
