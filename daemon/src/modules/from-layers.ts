import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { scratchDirectory, type BaseOptions } from "./bases/base.js";
import { Cleanup } from "./cleanup.js";
import { readErofsTree } from "./erofs-tree.js";
import { leaveOutMachineFiles, settleTimes } from "./machine-files.js";
import type { DirectoryNode } from "./oci/tree.js";
import { writeTreeTar } from "./oci/tree-tar.js";
import { packTar, type ModuleManifest, type PackOptions } from "./pack.js";

/** bytes that the files may have together, holes included */
const maxTreeBytes = 32 * 1024 ** 3;

export interface LayerModuleOptions extends BaseOptions {
  /** an image that a capture has written: what was captured, merged as overlayfs shows it */
  readonly image: string;
  /** whether what belongs to the machine, caches and logs are kept; @default false */
  readonly all?: boolean;
  /** seconds since 1970; what was changed later gets an earlier time, so that when it was made makes no difference; @default none */
  readonly settleSinceS?: number;
}

/**
 * Makes a module of captured files, with whiteouts and opaque directories, which then hide what lies below the module. Nothing of them is ever
 * unpacked on the host before it is a squashfs image. The same files give the same bytes. Blocks while it reads the list of files: for a process
 * of its own. Throws `build_failed`, `cancelled`, `invalid_request` where there are no files.
 */
export async function buildFromLayers(options: LayerModuleOptions): Promise<ModuleManifest> {
  const { image, name, all = false, settleSinceS } = options;
  options.progress("reading what was written", 0.3);
  const tree = readErofsTree(image);
  if (!all) leaveOutMachineFiles(tree);
  if (settleSinceS !== undefined) settleTimes(tree, settleSinceS);
  if (tree.children.size === 0)
    throw new SquashError("invalid_request", `Cannot make module "${name}": nothing was written that would be in it`);
  await using cleanup = new Cleanup();
  const scratch = await scratchDirectory(options.dataDir, cleanup);
  options.progress("packing it", 0.5);
  return await packTree(tree, join(scratch, "packing"), options);
}

/** Packs a tree with its whiteouts. `scratch` must not exist; it is removed again. */
export async function packTree(
  tree: DirectoryNode,
  scratch: string,
  options: PackOptions & { readonly maxBytes?: number },
): Promise<ModuleManifest> {
  const { signal, maxBytes = maxTreeBytes } = options;
  await mkdir(scratch, { mode: 0o700 });
  try {
    const path = join(scratch, "tree.tar");
    const facts = await writeTreeTar(tree, path, { limit: maxBytes, ...(signal === undefined ? {} : { signal }) });
    return await packTar({ path, facts }, scratch, { ...options, keepWhiteouts: true });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
