import { splitPath, parseEntryPath } from "./entry-path.js";
import { imageError, quoted } from "./image-error.js";
import type { TarEntry } from "./tar-reader.js";
import { emptyDirectory, nodeAt, type Attributes, type DirectoryNode, type TreeNode } from "./tree.js";

const maxLinkBytes = 4095;
const maxXattrBytes = 64 * 1024;
/** bytes of memory that one takes besides its name and value */
const xattrOverhead = 256;
const noXattrs: ReadonlyMap<string, Buffer> = new Map();
const maxId = 0xffff_fffe;
const unknownAttributes: Attributes = { mode: 0o755, uid: 0, gid: 0, mtimeS: 0, xattrs: new Map() };

/** What all layers of an image together may take of the memory. */
export class TreeBudget {
  #nodes: number;
  #bytes: number;

  constructor(limits: { readonly nodes?: number; readonly bytes?: number } = {}) {
    this.#nodes = limits.nodes ?? 1_000_000;
    this.#bytes = limits.bytes ?? 256 * 1024 ** 2;
  }

  /** Throws `RangeError` when it is used up. */
  take(nodes: number, bytes: number): void {
    this.#nodes -= nodes;
    this.#bytes -= bytes;
    if (this.#nodes < 0) throw new RangeError("its layers have too many files");
    if (this.#bytes < 0) throw new RangeError("the names in its layers are too long together");
  }
}

interface LayerOptions {
  /** where the layer's content lies */
  readonly path: string;
  /** which layer it is, for messages */
  readonly label: string;
  readonly budget: TreeBudget;
}

/**
 * Reads the entries of a layer into a tree. Of entries of one name the last one wins; whiteouts hide what lower layers have, wherever in the
 * layer they stand; devices are left out, and hide like whiteouts. Hard links are to what the layer has by then, else to what `lower` has,
 * which is the merge of all layers below. Throws `build_failed` for names that cannot be, and for a path below a file or link of the same layer.
 */
export async function buildLayer(
  entries: AsyncIterable<TarEntry>,
  lower: DirectoryNode,
  options: LayerOptions,
): Promise<DirectoryNode> {
  const builder = new LayerBuilder(lower, options);
  try {
    for await (const entry of entries) builder.add(entry);
    return builder.finish();
  } catch (cause) {
    if (cause instanceof RangeError) throw imageError(`${options.label}: ${cause.message}`, cause);
    throw cause;
  }
}

class LayerBuilder {
  readonly #root = emptyDirectory();
  readonly #lower: DirectoryNode;
  readonly #options: LayerOptions;
  readonly #whiteouts: (readonly string[])[] = [];
  readonly #opaque: (readonly string[])[] = [];

  constructor(lower: DirectoryNode, options: LayerOptions) {
    this.#lower = lower;
    this.#options = options;
  }

  add(entry: TarEntry): void {
    const { kind, path } = parseEntryPath(entry.name);
    this.#options.budget.take(1, entry.name.length + entry.linkname.length);
    if (kind === "whiteout") this.#whiteouts.push(path);
    if (kind === "opaque") this.#opaque.push(path);
    if (kind === "plain") this.#place(path, entry);
  }

  finish(): DirectoryNode {
    for (const path of this.#whiteouts) {
      const parent = this.#directoryAt(path.slice(0, -1));
      const name = path.at(-1) ?? "";
      const node = parent?.children.get(name);
      if (node === undefined) parent?.children.set(name, { kind: "whiteout" });
      else if (node.kind === "directory") node.isOpaque = node.isNew = true;
    }
    for (const path of this.#opaque) {
      const directory = this.#directoryAt(path);
      if (directory !== null) directory.isOpaque = true;
    }
    settle(this.#root, this.#lower);
    return this.#root;
  }

  #place(path: readonly string[], entry: TarEntry): void {
    const name = path.at(-1);
    const attributes = attributesOf(entry, this.#options.budget);
    if (name === undefined) {
      this.#root.attributes = attributes;
      return; // the root can be nothing but a directory
    }
    const node = this.#nodeOf(entry, attributes);
    const parent = this.#directoryAt(path.slice(0, -1));
    if (parent === null)
      throw new RangeError(`entry ${quoted(entry.name)} lies below a file or link of the same layer`);
    const old = parent.children.get(name);
    if (node.kind === "directory" && old?.kind === "directory") old.attributes = attributes;
    else parent.children.set(name, node);
  }

  #nodeOf(entry: TarEntry, attributes: Attributes): TreeNode {
    switch (entry.type) {
      case "0":
        if (entry.name.endsWith("/")) return { ...emptyDirectory(), attributes }; // as before there were types
        return {
          kind: "file",
          attributes,
          content: { path: this.#options.path, offset: entry.offset, size: entry.size },
        };
      case "1":
        return this.#linked(entry);
      case "2":
        if (entry.linkname === "" || entry.linkname.length > maxLinkBytes || entry.linkname.includes("\0"))
          throw new RangeError(`symbolic link ${quoted(entry.name)} leads to a path that cannot be`);
        return { kind: "symlink", attributes, target: entry.linkname };
      case "3":
      case "4":
        return { kind: "whiteout" };
      case "5":
        return { ...emptyDirectory(), attributes };
      case "6":
        return { kind: "fifo", attributes };
      default:
        throw new RangeError(`entry ${quoted(entry.name)} is of the unknown type ${quoted(entry.type)}`);
    }
  }

  #linked(entry: TarEntry): TreeNode {
    const path = splitPath(entry.linkname);
    const node = nodeAt(this.#root, path) ?? nodeAt(this.#lower, path);
    if (node === undefined || node.kind === "directory")
      throw new RangeError(`entry ${quoted(entry.name)} is a hard link to ${quoted(entry.linkname)}, which is no file`);
    return node;
  }

  /** The directory at a path, made where there is none; null below what is no directory in this layer. */
  #directoryAt(path: readonly string[]): DirectoryNode | null {
    let directory = this.#root;
    for (const name of path) {
      let next = directory.children.get(name);
      if (next === undefined || next.kind === "whiteout") {
        this.#options.budget.take(1, 0);
        const isHiding = next !== undefined;
        next = { ...emptyDirectory(), isOpaque: isHiding, isNew: isHiding };
        directory.children.set(name, next);
      }
      if (next.kind !== "directory") return null;
      directory = next;
    }
    return directory;
  }
}

/** Gives directories that no entry was about the attributes that they have in the layers below. */
function settle(directory: DirectoryNode, lower: DirectoryNode | null): void {
  directory.attributes ??= (directory.isNew ? null : lower?.attributes) ?? unknownAttributes;
  const below = directory.isOpaque ? null : lower;
  for (const [name, node] of directory.children) {
    if (node.kind !== "directory") continue;
    const same = below?.children.get(name);
    settle(node, same?.kind === "directory" ? same : null);
  }
}

function attributesOf(entry: TarEntry, budget: TreeBudget): Attributes {
  const { mode, uid, gid, mtimeS } = entry;
  if (uid < 0 || uid > maxId || gid < 0 || gid > maxId)
    throw new RangeError(`entry ${quoted(entry.name)} has an owner that cannot be`);
  const xattrs = keptXattrs(entry);
  for (const [key, value] of xattrs) budget.take(0, key.length + value.length + xattrOverhead);
  // as an image holds it; a time that it cannot hold counts as none
  return { mode: mode & 0o7777, uid, gid, mtimeS: mtimeS >= 0 && mtimeS <= 0xffff_ffff ? mtimeS : 0, xattrs };
}

/**
 * Only those of users. File capabilities would have no effect in a sandbox (`no_new_privs`), and what begins with `trusted.` would tell
 * overlayfs where to look for files.
 */
function keptXattrs(entry: TarEntry): ReadonlyMap<string, Buffer> {
  const kept = new Map<string, Buffer>();
  let size = 0;
  for (const [key, value] of entry.xattrs) {
    if (!/^user\.[\x21-\x3c\x3e-\x7e]{1,250}$/.test(key) || key.startsWith("user.overlay.")) continue;
    size += key.length + value.length;
    if (size > maxXattrBytes) throw new RangeError(`entry ${quoted(entry.name)} has too many extended attributes`);
    // a copy of its own: a small buffer would hold on to the memory that it shares with others, which are not counted
    kept.set(key, Buffer.from(Uint8Array.from(value).buffer));
  }
  return kept.size === 0 ? noXattrs : kept;
}
