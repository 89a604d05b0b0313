import type { Colors } from "./colors.js";
import { printableLine } from "./terminal-text.js";

export interface TreeNode {
  readonly name: string;
  /** name of the node above; one that is not there counts as none */
  readonly parent: string | null;
  readonly note: string;
}

/** Nodes as a tree of lines, each below its parent, in the order given. Names that go in circles are left out. */
export function renderTree(nodes: readonly TreeNode[], colors: Colors): string {
  const names = new Set(nodes.map(({ name }) => name));
  const below = new Map<string | null, TreeNode[]>();
  for (const node of nodes) {
    const parent = node.parent !== null && names.has(node.parent) ? node.parent : null;
    below.set(parent, [...(below.get(parent) ?? []), node]);
  }
  const lines: string[] = [];
  const draw = (parent: string | null, indent: string): void => {
    const children = below.get(parent) ?? [];
    for (const [at, { name, note }] of children.entries()) {
      const isLast = at === children.length - 1;
      const branch = parent === null ? "" : isLast ? "└─ " : "├─ ";
      lines.push(`${indent}${branch}${printableLine(name)}  ${colors.dim(printableLine(note))}`);
      draw(name, parent === null ? indent : `${indent}${isLast ? "   " : "│  "}`);
    }
  };
  draw(null, "");
  return lines.map((line) => `${line}\n`).join("");
}
