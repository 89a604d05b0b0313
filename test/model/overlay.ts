import { copiedUp, emptied, newDirectory, type Directory, type Entry, type Node } from "./nodes.js";

/** Why the kernel refuses something. */
export type Refusal =
  | "ENOENT"
  | "EEXIST"
  | "ENOTDIR"
  | "EISDIR"
  | "ENOTEMPTY"
  | "EXDEV"
  | "EINVAL"
  | "EPERM"
  | "ENODATA"
  | "ELOOP"
  | "ENXIO";

export class Refused extends Error {
  readonly code: Refusal;

  constructor(code: Refusal) {
    super(code);
    this.code = code;
  }
}

/** What is at a path: directories of several layers, topmost first, or one other file. */
export interface Place {
  readonly nodes: readonly Node[];
  /** whether the first one is in the upper */
  readonly isUpper: boolean;
}

/** What keeps an upper. ext4 alone changes a time when it refuses: see `refuseToReplace`. */
export type UpperKind = "tmpfs" | "ext4";

/** A stack of layers as overlayfs shows it, without redirections and index: `rename` and hard links are what that makes of them. */
export class Overlay {
  upper: Directory;
  /** topmost first; never changed */
  readonly lowers: readonly Directory[];
  readonly #upperKind: UpperKind;

  constructor(lowers: readonly Directory[], options: { readonly upperKind: UpperKind; readonly upper?: Directory }) {
    const [below] = lowers;
    this.lowers = lowers;
    this.#upperKind = options.upperKind;
    this.upper = options.upper ?? (below === undefined ? newDirectory(0o755) : emptied(below));
  }

  /** Nothing has no nodes. Throws `Refused` where the way there is none. */
  find(path: string): Place {
    let place: Place = { nodes: [this.upper, ...this.lowers], isUpper: true };
    for (const name of partsOf(path)) {
      const [first] = place.nodes;
      if (first === undefined || first.kind === "symlink") throw new Refused("ENOENT"); // links lead nowhere
      if (first.kind !== "directory") throw new Refused("ENOTDIR");
      place = childOf(place, name);
    }
    return place;
  }

  /** What must be there. */
  mustFind(path: string): Node {
    const [node] = this.find(path).nodes;
    if (node === undefined) throw new Refused("ENOENT");
    return node;
  }

  /** Makes it, and what leads to it, part of the upper. */
  copyUp(path: string): Node {
    let place: Place = { nodes: [this.upper, ...this.lowers], isUpper: true };
    for (const name of partsOf(path)) {
      const [parent] = place.nodes;
      const child = childOf(place, name);
      const [node] = child.nodes;
      if (node === undefined || parent?.kind !== "directory") throw new Refused("ENOENT");
      place = child;
      if (child.isUpper) continue;
      const copy = copiedUp(node);
      parent.entries.set(name, copy);
      place = { nodes: node.kind === "directory" ? [copy, ...child.nodes] : [copy], isUpper: true };
    }
    return place.nodes[0] ?? this.upper;
  }

  /** Gives a file a name that is free. */
  add(path: string, node: Node): void {
    const parent = this.#parentOf(path);
    const name = nameOf(path);
    if (node.kind === "directory" && parent.entries.get(name) === "whiteout") node.opaque = true;
    parent.entries.set(name, node);
    parent.mtime = null;
  }

  /** Takes a name away; what lower layers have there stays hidden. */
  drop(path: string): void {
    const parent = this.#parentOf(path);
    const name = nameOf(path);
    const entry = parent.entries.get(name);
    if (entry !== undefined && entry !== "whiteout" && entry.kind !== "directory") entry.links--;
    if (this.#isBelow(path)) parent.entries.set(name, "whiteout");
    else parent.entries.delete(name);
    parent.mtime = null;
  }

  /** Whether overlayfs would show a directory of another layer at its path. */
  isMerged(path: string): boolean {
    const { nodes, isUpper } = this.find(path);
    return !isUpper || nodes.length > 1;
  }

  /** Names in a directory as they are seen. */
  namesIn(path: string): string[] {
    const place = this.find(path);
    const names = new Set(place.nodes.flatMap((node) => (node.kind === "directory" ? [...node.entries.keys()] : [])));
    return [...names].filter((name) => childOf(place, name).nodes.length > 0).toSorted();
  }

  /** Every file that is seen, by path; the root is ".". */
  all(path = "."): [string, Node][] {
    const node = this.mustFind(path);
    const below = node.kind === "directory" ? this.namesIn(path) : [];
    return [[path, node], ...below.flatMap((name) => this.all(`${path}/${name}`))];
  }

  /**
   * A directory is not moved from `path` to `to`, as one that has files is there. Overlayfs looks into it only where there may be whiteouts;
   * any other it leaves to the file system that keeps the upper. When a whiteout was to stay behind, ext4 writes the old entry once more, and so
   * changes the time of the directory that holds it (`ext4_resetent`).
   */
  refuseToReplace(path: string, to: string): never {
    const target = this.mustFind(to);
    const mayHaveWhiteouts = this.isMerged(to) || (target.kind === "directory" && target.isCopy);
    if (this.#upperKind === "ext4" && !mayHaveWhiteouts && this.#isBelow(path)) this.#parentOf(path).mtime = null;
    throw new Refused("ENOTEMPTY");
  }

  /** Whether lower layers have something at the path of what is in the upper. */
  #isBelow(path: string): boolean {
    const { nodes } = this.find(parentOf(path));
    return childOf({ nodes: nodes.slice(1), isUpper: false }, nameOf(path)).nodes.length > 0;
  }

  #parentOf(path: string): Directory {
    const parent = this.copyUp(parentOf(path));
    if (parent.kind !== "directory") throw new Refused("ENOTDIR");
    return parent;
  }
}

function childOf({ nodes, isUpper }: Place, name: string): Place {
  const found: Node[] = [];
  let first: Entry | undefined;
  for (const node of nodes) {
    const entry = node.kind === "directory" ? node.entries.get(name) : undefined;
    if (entry === undefined) continue;
    if (entry === "whiteout") break;
    if (entry.kind !== "directory" && found.length > 0) break;
    first ??= entry;
    found.push(entry);
    if (entry.kind !== "directory" || entry.opaque) break;
  }
  const [top] = nodes;
  return { nodes: found, isUpper: isUpper && first !== undefined && isIn(top, name, first) };
}

function isIn(top: Node | undefined, name: string, entry: Entry): boolean {
  return top?.kind === "directory" && top.entries.get(name) === entry;
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== ".");
}

export function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/"))) || ".";
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
