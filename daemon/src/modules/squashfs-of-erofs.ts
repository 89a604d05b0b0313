import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { scratchDirectory, type BaseOptions } from "./bases/base.js";
import { Cleanup } from "./cleanup.js";
import { makeWorkshop, takeFile } from "./confined-tool.js";
import { readErofsTree } from "./erofs-tree.js";
import { TreeBudget } from "./oci/layer-tree.js";
import type { Attributes, DirectoryNode } from "./oci/tree.js";
import { writeTreeTar } from "./oci/tree-tar.js";
import { squashfsOfTar } from "./pack.js";
import { unpackBounds } from "./squashfs-survey.js";

/** paths of what is left out that are told */
const toldPaths = 5;

interface ErofsSource {
  /** an image that a capture has written */
  readonly image: string;
  readonly name: string;
  readonly dataDir: string;
  /** where the new image is written to; must not exist */
  readonly target: string;
}

/**
 * Makes a squashfs image with the files of an erofs one, which is read without being mounted; the same files give the same bytes. Sockets and
 * devices are left out, which is told; times are in whole seconds. What else squashfs cannot hold fails it. Blocks while it reads the list of
 * files: for a process of its own. Throws `build_failed`, `cancelled`.
 */
export async function squashfsOfErofs(
  { image, name, dataDir, target }: ErofsSource,
  { progress, signal }: Pick<BaseOptions, "progress"> & { readonly signal: AbortSignal },
): Promise<void> {
  progress("reading the list of files", 0.4);
  const left = { socket: 0, device: 0, paths: [] as string[] };
  const leaveOut = (kind: "socket" | "device", path: string): void => {
    left[kind]++;
    if (left.paths.length < toldPaths) left.paths.push(Buffer.from(path, "latin1").toString("utf8"));
  };
  const tree = readErofsTree(image, new TreeBudget(), { leaveOut });
  const root = rootOf(tree, name);
  if (left.paths.length > 0)
    progress(`leaving out ${left.socket} sockets and ${left.device} devices: ${JSON.stringify(left.paths)}`);
  await using cleanup = new Cleanup();
  const scratch = await scratchDirectory(dataDir, cleanup);
  const path = join(scratch, "tree.tar");
  const facts = await writeTreeTar(tree, path, { limit: (await unpackBounds(scratch)).bytes, signal });
  progress("packing them", 0.6);
  const latestMtimeS = Math.max(facts.latestMtimeS, root.mtimeS);
  const rootMode = root.mode.toString(8).padStart(4, "0");
  const tar = { path, facts: { ...facts, latestMtimeS }, rootMode };
  await takeFile(await squashfsOfTar(await makeWorkshop(scratch), tar, { name, signal }), target, signal);
}

/** Attributes of the root directory, of which sqfstar 4.5 takes only the mode. Marks of overlayfs have no effect on it: it is always merged. */
function rootOf({ attributes }: DirectoryNode, name: string): Attributes {
  if (attributes === null) throw new Error("an image has no root directory");
  const { uid, gid, xattrs } = attributes;
  const own = [...xattrs.keys()].filter((key) => !key.startsWith("trusted.overlay."));
  const found = uid === 0 && gid === 0 ? own[0] && `attribute ${own[0]}` : `owner ${uid}:${gid}`;
  if (found === undefined) return attributes;
  const hint = "the packer of squashfs images cannot give that to a root directory";
  throw new SquashError("build_failed", `Cannot make a squashfs image of module "${name}": "/" has ${found}; ${hint}`);
}
