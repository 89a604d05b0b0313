import type { FileRange } from "./tar-reader.js";

/** What a file has besides its content. */
export interface Attributes {
  /** permission bits, with set-user-id, set-group-id and sticky */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** seconds since 1970 */
  readonly mtimeS: number;
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

/** Hard links are one node at several places, also of links and fifos. */
export interface FileNode {
  readonly kind: "file";
  attributes: Attributes;
  /** where its bytes lie; of a file with holes only its size counts */
  readonly content: FileRange;
  /** of a file with holes: what is no hole, by where in the file (`at`) and where in the content's file (`offset`) it is */
  readonly extents?: readonly { readonly at: number; readonly offset: number; readonly size: number }[];
}

interface SymlinkNode {
  readonly kind: "symlink";
  attributes: Attributes;
  readonly target: string;
}

interface FifoNode {
  readonly kind: "fifo";
  attributes: Attributes;
}

/** Removes what lower layers have of that name. */
interface WhiteoutNode {
  readonly kind: "whiteout";
}

/** A directory of a layer, or of layers that were merged; those have neither whiteouts nor opaque directories. */
export interface DirectoryNode {
  readonly kind: "directory";
  /** null where no entry was about the directory itself, only about what is in it */
  attributes: Attributes | null;
  /** whether what lower layers have in it is hidden */
  isOpaque: boolean;
  /** whether the lower layers' directory itself is gone, so that nothing of it is inherited */
  isNew: boolean;
  readonly children: Map<string, TreeNode>;
}

export type TreeNode = FileNode | SymlinkNode | FifoNode | WhiteoutNode | DirectoryNode;

/** A directory that nothing is known of yet. */
export function emptyDirectory(): DirectoryNode {
  return { kind: "directory", attributes: null, isOpaque: false, isNew: false, children: new Map() };
}

/** Puts a layer onto those below it, which are changed; the layer itself is not, and files are shared. As overlayfs shows them. */
export function mergeLayer(lower: DirectoryNode, layer: DirectoryNode): DirectoryNode {
  lower.attributes = layer.attributes;
  if (layer.isOpaque) lower.children.clear();
  for (const [name, node] of layer.children) {
    if (node.kind === "whiteout") lower.children.delete(name);
    else if (node.kind === "directory") {
      const below = lower.children.get(name);
      lower.children.set(name, mergeLayer(below?.kind === "directory" ? below : emptyDirectory(), node));
    } else lower.children.set(name, node);
  }
  return lower;
}

/** What is at a path; no link is followed. */
export function nodeAt(root: DirectoryNode, path: readonly string[]): TreeNode | undefined {
  let node: TreeNode | undefined = root;
  for (const name of path) {
    if (node?.kind !== "directory") return undefined;
    node = node.children.get(name);
  }
  return node;
}
