import { Content } from "./content.js";

/** What every file has. */
export interface Attributes {
  /** permissions alone */
  mode: number;
  uid: number;
  gid: number;
  /** seconds and nine digits; null where the kernel chose it and it was not looked at yet */
  mtime: string | null;
  readonly attributes: Map<string, string>;
}

export interface Leaf extends Attributes {
  readonly kind: "file" | "symlink" | "pipe" | "socket";
  /** names that it has in its layer */
  links: number;
  readonly content: Content;
  readonly target: string;
}

export interface Directory extends Attributes {
  readonly kind: "directory";
  /** hides what layers below have at its path */
  opaque: boolean;
  /** whether overlayfs made it of one of a lower layer, and marked it so */
  isCopy: boolean;
  readonly entries: Map<string, Entry>;
}

export type Node = Leaf | Directory;
export type Entry = Node | "whiteout";

export function newDirectory(mode: number): Directory {
  return {
    kind: "directory",
    mode,
    uid: 0,
    gid: 0,
    mtime: null,
    attributes: new Map(),
    opaque: false,
    isCopy: false,
    entries: new Map(),
  };
}

export function newLeaf(kind: Leaf["kind"], mode: number, target = ""): Leaf {
  return {
    kind,
    mode,
    uid: 0,
    gid: 0,
    mtime: null,
    attributes: new Map(),
    links: 1,
    content: new Content(),
    target,
  };
}

/** What overlayfs makes of a file of a lower layer before it changes it: hard links are broken, directories empty. */
export function copiedUp(node: Node): Node {
  if (node.kind === "directory") return emptied(node);
  return { ...node, attributes: new Map(node.attributes), links: 1, content: node.content.copy() };
}

export function emptied(directory: Directory): Directory {
  return { ...directory, attributes: new Map(directory.attributes), opaque: false, isCopy: true, entries: new Map() };
}

/** One image of several layers, topmost first, that stands for them wherever they lay: whiteouts stay, and hard links within a layer. */
export function merged(layers: readonly Directory[], copies = new Map<Leaf, Leaf>()): Directory {
  const [top] = layers;
  if (top === undefined) throw new Error("no layers to merge");
  const result: Directory = { ...top, attributes: new Map(top.attributes), entries: new Map() };
  for (const name of new Set(layers.flatMap(({ entries }) => [...entries.keys()]))) {
    const below: Directory[] = [];
    let hides = false;
    for (const layer of layers) {
      const entry = layer.entries.get(name);
      if (entry === undefined) continue;
      if (entry !== "whiteout" && entry.kind === "directory") {
        below.push(entry);
        if (!entry.opaque) continue;
      } else if (below.length === 0) result.entries.set(name, entry === "whiteout" ? entry : copyOf(entry, copies));
      hides = true;
      break;
    }
    if (below.length === 0) continue;
    const directory = merged(below, copies);
    directory.opaque = hides;
    result.entries.set(name, directory);
  }
  return result;
}

function copyOf(leaf: Leaf, copies: Map<Leaf, Leaf>): Leaf {
  const known = copies.get(leaf);
  if (known !== undefined) {
    known.links++;
    return known;
  }
  const copy = { ...leaf, attributes: new Map(leaf.attributes), links: 1, content: leaf.content.copy() };
  copies.set(leaf, copy);
  return copy;
}
