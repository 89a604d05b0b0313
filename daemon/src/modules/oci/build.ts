import { createReadStream } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { scratchDirectory, type BaseOptions } from "../bases/base.js";
import { baseName } from "../bases/from-dir.js";
import { Cleanup } from "../cleanup.js";
import { firstBytes, unpackerOf, unpackTo } from "../decompress.js";
import { packTree } from "../from-layers.js";
import { moduleFormats } from "../module-name.js";
import { refuseExisting, type ModuleManifest } from "../pack.js";
import { runTool } from "../run-tool.js";
import { defaultsOf } from "./config-defaults.js";
import type { LocalImage } from "./image.js";
import { imageError } from "./image-error.js";
import { buildLayer, TreeBudget } from "./layer-tree.js";
import { imageName, parseReference } from "./reference.js";
import { readTar, type FileRange } from "./tar-reader.js";
import { emptyDirectory, mergeLayer, type DirectoryNode } from "./tree.js";

const usualMaxBytes = 16 * 1024 ** 3;

export interface ImageBuildOptions extends Omit<BaseOptions, "name"> {
  /** of the module, or of all modules but for the number; null for one after the image's own */
  readonly name: string | null;
  /** whether each layer becomes a module of its own */
  readonly perLayer: boolean;
  /** bytes of all layers when they are not compressed; @default 16 GiB */
  readonly maxBytes?: number;
}

/** What is to be packed as a module. */
interface PlannedModule {
  readonly name: string;
  readonly tree: DirectoryNode;
}

/**
 * Makes a base module of an image, or one module of each layer, the lowest first. `load` gets the image, with a scratch directory that goes
 * at the end. Nothing of the image is ever unpacked on the host's file system before it is a squashfs image without devices and climbing
 * names. The same image gives the same bytes. Throws `build_failed`, `cancelled`, `invalid_request`.
 */
export async function buildFromImage(
  load: (scratch: string) => Promise<LocalImage>,
  options: ImageBuildOptions,
): Promise<ModuleManifest[]> {
  await using cleanup = new Cleanup();
  const scratch = await scratchDirectory(options.dataDir, cleanup);
  const image = await load(scratch);
  const name = baseName(options.name ?? nameOfImage(image.reference));
  if (!options.perLayer && options.force !== true) await refuseExisting(options.dataDir, name);
  const trees = await readLayers(image, scratch, options);
  const modules = options.perLayer ? planLayers(name, trees.layers) : [{ name, tree: trees.merged }];
  const last = modules.at(-1);
  if (last === undefined || last.tree.children.size === 0) throw imageError("there are no files in it");
  if (options.force !== true) for (const each of modules) await refuseExisting(options.dataDir, each.name);
  const manifests: ModuleManifest[] = [];
  try {
    for (const [index, module] of modules.entries()) {
      options.progress(`packing ${module.name}`, 0.7 + (0.3 * index) / modules.length);
      const defaults = module === last ? { defaults: defaultsOf(image.config, trees.merged) } : {};
      // a layer may have copies of lower layers' files, for hard links
      const maxBytes = 2 * (options.maxBytes ?? usualMaxBytes);
      const packed = { ...options, ...defaults, name: module.name, maxBytes };
      manifests.push(await packTree(module.tree, join(scratch, "packing"), packed));
    }
  } catch (error) {
    // part of a stack is of no use; what was replaced by force is gone in any case
    for (const made of manifests) await removeModule(options.dataDir, made.name);
    throw error;
  }
  return manifests;
}

/** Bounds of what is unpacked count for all layers together. */
async function readLayers(
  image: LocalImage,
  scratch: string,
  options: ImageBuildOptions,
): Promise<{ readonly layers: readonly DirectoryNode[]; readonly merged: DirectoryNode }> {
  const budget = new TreeBudget();
  const layers: DirectoryNode[] = [];
  let merged = emptyDirectory();
  let left = options.maxBytes ?? usualMaxBytes;
  for (const [index, packed] of image.layers.entries()) {
    const label = `layer ${index + 1}`;
    options.progress(`reading ${label} of ${image.layers.length}`, 0.4 + (0.3 * index) / image.layers.length);
    const tar = await unpackLayer(packed, join(scratch, `layer-${index}.tar`), { label, limit: left, options });
    left -= tar.size;
    if (tar.sha256 !== image.config.rootfs.diff_ids[index])
      throw imageError(
        `${label} has the digest ${tar.sha256} when it is unpacked, which is another than it should have`,
      );
    const entries = readTar(tar, { label, ...signalOf(options) });
    const layer = await buildLayer(entries, merged, { path: tar.path, label, budget });
    if (options.perLayer) layers.push(layer);
    merged = mergeLayer(merged, layer);
  }
  return { layers, merged };
}

async function unpackLayer(
  { path, offset, size }: FileRange,
  target: string,
  { label, limit, options }: { readonly label: string; readonly limit: number; readonly options: ImageBuildOptions },
): Promise<FileRange & { readonly sha256: string }> {
  if (size === 0) throw imageError(`${label} is empty`);
  const unpacker = unpackerOf(await firstBytes(path, offset));
  const stdin = createReadStream(path, { start: offset, end: offset + size - 1 });
  const bounds = { target: label, limit, ...signalOf(options) };
  try {
    const unpacked = await unpackTo(options.run ?? runTool, { unpacker, stdin }, target, bounds);
    return { path: target, offset: 0, size: unpacked.size, sha256: `sha256:${unpacked.sha256}` };
  } catch (cause) {
    options.signal?.throwIfAborted();
    throw cause instanceof SquashError ? cause : imageError(`${label}: ${(cause as Error).message}`, cause);
  }
}

/** Layers with nothing in them make no module, and neither do those that are hidden as a whole. */
function planLayers(name: string, layers: readonly DirectoryNode[]): PlannedModule[] {
  const hidden = layers.findLastIndex(({ isOpaque }) => isOpaque);
  const [, digits = "0", rest = name] = /^(\d+)-(.*)$/s.exec(name) ?? [];
  return layers
    .slice(Math.max(0, hidden))
    .filter(({ children }) => children.size > 0)
    .map((tree, index) => ({
      name: `${String(Number(digits) + index).padStart(digits.length, "0")}-${rest}-layer-${index + 1}`,
      tree,
    }));
}

async function removeModule(dataDir: string, name: string): Promise<void> {
  const files = [...moduleFormats.map((format) => `${name}.${format}`), `${name}.manifest.json`];
  for (const file of files) await rm(join(dataDir, "modules", file), { force: true });
}

/** The name of a module of an image that is called so. Throws `invalid_request` where nothing says what it is called. */
export function nameOfImage(reference: string | null): string {
  try {
    if (reference !== null && /[/:@]/.test(reference)) return imageName(parseReference(reference));
  } catch {
    // it is called by something else than a reference, and the person can say better
  }
  throw new SquashError("invalid_request", "Cannot name the module: the image has no name, give one with --name");
}

function signalOf({ signal }: { readonly signal?: AbortSignal }): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
