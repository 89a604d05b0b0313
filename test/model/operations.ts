import { newDirectory, newLeaf, type Directory, type Leaf, type Node } from "./nodes.js";
import { Overlay, parentOf, Refused, type Refusal } from "./overlay.js";

type Made = "create" | "mkdir" | "pipe" | "socket";

/** One line for `tree.c`. */
export type Operation =
  | { readonly do: Made; readonly path: string; readonly mode: number }
  | { readonly do: "chmod"; readonly path: string; readonly mode: number }
  | { readonly do: "rmdir" | "unlink" | "remove"; readonly path: string }
  | { readonly do: "rename" | "link"; readonly path: string; readonly to: string }
  | { readonly do: "symlink"; readonly path: string; readonly target: string }
  | {
      readonly do: "write";
      readonly path: string;
      readonly offset: number;
      readonly length: number;
      readonly seed: number;
    }
  | { readonly do: "truncate"; readonly path: string; readonly size: number }
  | { readonly do: "chown"; readonly path: string; readonly uid: number; readonly gid: number }
  | { readonly do: "touch"; readonly path: string; readonly seconds: number; readonly nanoseconds: number }
  | { readonly do: "attribute"; readonly path: string; readonly name: string; readonly value: string }
  | { readonly do: "unattribute"; readonly path: string; readonly name: string };

/** The line; fields are in the order of the operation's. */
export function lineOf(operation: Operation): string {
  const { do: what, path, ...rest } = operation;
  const fields = Object.values(rest) as (string | number)[];
  return [what, path, ...fields].join("\t");
}

/** Does it to the model; why not where the kernel refuses it. */
export function apply(overlay: Overlay, operation: Operation): Refusal | null {
  try {
    operate(overlay, operation);
    return null;
  } catch (error) {
    if (error instanceof Refused) return error.code;
    throw error;
  }
}

function operate(overlay: Overlay, one: Operation): void {
  switch (one.do) {
    case "create":
      return add(overlay, one.path, newLeaf("file", one.mode));
    case "pipe":
    case "socket":
      return add(overlay, one.path, newLeaf(one.do, one.mode));
    case "symlink":
      return add(overlay, one.path, newLeaf("symlink", 0o777, one.target));
    case "mkdir":
      return add(overlay, one.path, newDirectory(one.mode));
    case "unlink":
      if (overlay.mustFind(one.path).kind === "directory") throw new Refused("EISDIR");
      return overlay.drop(one.path);
    case "rmdir":
      return removeDirectory(overlay, one.path);
    case "remove":
      return removeTree(overlay, one.path);
    case "rename":
      return rename(overlay, one.path, one.to);
    case "link":
      return link(overlay, one.path, one.to);
    case "write":
    case "truncate":
    case "chmod":
    case "chown":
    case "touch":
    case "attribute":
    case "unattribute":
      return change(overlay, one);
  }
}

type Change = Extract<
  Operation,
  { readonly do: "write" | "truncate" | "chmod" | "chown" | "touch" | "attribute" | "unattribute" }
>;

function change(overlay: Overlay, one: Change): void {
  switch (one.do) {
    case "write":
      opened(overlay, one.path).content.write(one.offset, one.length, one.seed);
      return;
    case "truncate":
      opened(overlay, one.path).content.truncate(one.size);
      return;
    case "chmod":
      if (overlay.mustFind(one.path).kind === "symlink") throw new Refused("ENOENT"); // it is followed
      overlay.copyUp(one.path).mode = one.mode;
      return;
    case "chown": {
      overlay.mustFind(one.path);
      const node = overlay.copyUp(one.path);
      Object.assign(node, { uid: one.uid, gid: one.gid });
      if (node.kind !== "directory") loseIds(node);
      return;
    }
    case "touch":
      overlay.mustFind(one.path);
      overlay.copyUp(one.path).mtime = `${one.seconds}.${String(one.nanoseconds).padStart(9, "0")}`;
      return;
    case "attribute":
      attributed(overlay, one.path).attributes.set(one.name, one.value);
      return;
    case "unattribute":
      if (!refuseAttributes(overlay.mustFind(one.path)).attributes.has(one.name)) throw new Refused("ENODATA");
      attributed(overlay, one.path).attributes.delete(one.name);
  }
}

function add(overlay: Overlay, path: string, node: Node): void {
  if (overlay.find(path).nodes.length > 0) throw new Refused("EEXIST");
  const parent = overlay.mustFind(parentOf(path));
  if ((parent.mode & 0o2000) !== 0) {
    node.gid = parent.gid;
    if (node.kind === "directory") node.mode |= 0o2000;
  }
  overlay.add(path, node);
}

function removeDirectory(overlay: Overlay, path: string): void {
  if (overlay.mustFind(path).kind !== "directory") throw new Refused("ENOTDIR");
  if (overlay.namesIn(path).length > 0) throw new Refused("ENOTEMPTY");
  overlay.drop(path);
}

function removeTree(overlay: Overlay, path: string): void {
  if (overlay.mustFind(path).kind === "directory")
    for (const name of overlay.namesIn(path)) removeTree(overlay, `${path}/${name}`);
  overlay.drop(path);
}

function link(overlay: Overlay, path: string, to: string): void {
  const node = overlay.mustFind(path);
  if (overlay.find(to).nodes.length > 0) throw new Refused("EEXIST");
  if (node.kind === "directory") throw new Refused("EPERM");
  const leaf = overlay.copyUp(path) as Leaf;
  overlay.add(to, leaf);
  leaf.links++;
}

function rename(overlay: Overlay, path: string, to: string): void {
  const place = overlay.find(path);
  const target = overlay.find(to);
  const [source] = place.nodes;
  const [replaced] = target.nodes;
  if (source === undefined) throw new Refused("ENOENT");
  if (to.startsWith(`${path}/`)) throw new Refused("EINVAL");
  if (path.startsWith(`${to}/`)) throw new Refused("ENOTEMPTY");
  // two names of a file in a lower layer are two files
  if (path === to || (source === replaced && place.isUpper)) return;
  if (replaced !== undefined) {
    if (source.kind === "directory" && replaced.kind !== "directory") throw new Refused("ENOTDIR");
    if (source.kind !== "directory" && replaced.kind === "directory") throw new Refused("EISDIR");
  }
  if (source.kind === "directory" && overlay.isMerged(path)) throw new Refused("EXDEV");
  if (replaced?.kind === "directory" && overlay.namesIn(to).length > 0) overlay.refuseToReplace(path, to);
  const moved = overlay.copyUp(path);
  const intoMerged = overlay.isMerged(parentOf(to));
  if (replaced !== undefined) overlay.drop(to);
  overlay.drop(path);
  overlay.add(to, moved);
  if (moved.kind === "directory") moved.opaque ||= intoMerged;
  else moved.links++; // `drop` took one
}

/** A file to write to. */
function opened(overlay: Overlay, path: string): Leaf {
  const node = overlay.mustFind(path);
  if (node.kind === "directory") throw new Refused("EISDIR");
  if (node.kind === "symlink") throw new Refused("ELOOP");
  if (node.kind !== "file") throw new Refused("ENXIO");
  const leaf = overlay.copyUp(path) as Leaf;
  leaf.mtime = null;
  loseIds(leaf);
  return leaf;
}

function refuseAttributes(node: Node): Leaf | Directory {
  if (node.kind !== "directory" && node.kind !== "file") throw new Refused("EPERM");
  return node;
}

function attributed(overlay: Overlay, path: string): Node {
  refuseAttributes(overlay.mustFind(path));
  return overlay.copyUp(path);
}

/** What a change does to set-user-id and set-group-id, unless the machine's own root does it. */
function loseIds(leaf: Leaf): void {
  leaf.mode &= (leaf.mode & 0o010) !== 0 ? ~0o6000 : ~0o4000;
}
