import { describe, expect, it } from "vitest";
import { leaveOutMachineFiles, settleTimes } from "./machine-files.js";
import { emptyDirectory, type DirectoryNode, type TreeNode } from "./oci/tree.js";

const attributes = (mtimeS: number) => ({ mode: 0o644, uid: 0, gid: 0, mtimeS, xattrs: new Map<string, Buffer>() });
const file = (mtimeS = 1): TreeNode => ({
  kind: "file",
  attributes: attributes(mtimeS),
  content: { path: "x", offset: 0, size: 0 },
});

/** A tree of files at these paths; one that ends with "/" is an empty directory, one that begins with "!" a whiteout. */
function treeOf(...paths: readonly string[]): DirectoryNode {
  const root = emptyDirectory();
  for (const path of paths) {
    const names = path.replace("!", "").split("/");
    const last = names.pop() ?? "";
    let directory = root;
    for (const name of names) {
      const next = directory.children.get(name) ?? { ...emptyDirectory(), attributes: attributes(1) };
      if (next.kind !== "directory") throw new Error(path);
      directory.children.set(name, next);
      directory = next;
    }
    if (last !== "") directory.children.set(last, path.startsWith("!") ? { kind: "whiteout" } : file());
  }
  return root;
}

function pathsOf(directory: DirectoryNode, prefix = ""): string[] {
  return [...directory.children].flatMap(([name, node]) =>
    node.kind === "directory" && node.children.size > 0
      ? pathsOf(node, `${prefix}${name}/`)
      : [`${node.kind === "whiteout" ? "!" : ""}${prefix}${name}${node.kind === "directory" ? "/" : ""}`],
  );
}

describe("leaveOutMachineFiles()", () => {
  it("takes away what is the machine's, with directories that had nothing else", () => {
    const tree = treeOf(
      ...["etc/hosts", "etc/resolv.conf", "etc/machine-id", "!etc/hostname", "tmp/a/b", "!tmp/c", "var/log/x", "dev/"],
      ...["var/cache/apt/archives/a.deb", "var/lib/apt/lists/x", "run/lock/y", "proc/", "root/.cache/pip/z"],
    );
    leaveOutMachineFiles(tree);
    expect(pathsOf(tree)).toEqual([]);
  });

  it("keeps what lies beside it, and everything of other names", () => {
    const kept = ["etc/hosts.allow", "var/lib/apt/extended_states", "opt/tmp/x", "tmpfile", "srv/", "!var/mail"];
    const tree = treeOf("etc/hosts", "var/lib/apt/lists/x", ...kept);
    leaveOutMachineFiles(tree);
    expect(pathsOf(tree).toSorted()).toEqual(kept.toSorted());
  });

  it("does not let an emptied directory hide what lies below", () => {
    const tree = treeOf("tmp/a", "var/x");
    const tmp = tree.children.get("tmp");
    if (tmp?.kind === "directory") tmp.isOpaque = true;
    leaveOutMachineFiles(tree);
    expect(pathsOf(tree)).toEqual(["var/x"]);
  });

  it("keeps a directory that hides what lies below", () => {
    const tree = treeOf("etc/hosts");
    const etc = tree.children.get("etc");
    if (etc?.kind === "directory") etc.isOpaque = true;
    leaveOutMachineFiles(tree);
    expect(pathsOf(tree)).toEqual(["etc/"]);
  });

  it("passes over links and files where it looks for directories", () => {
    const tree = treeOf("tmp", "var");
    leaveOutMachineFiles(tree);
    expect(pathsOf(tree)).toEqual(["tmp", "var"]);
  });
});

describe("settleTimes()", () => {
  it("gives what is newer the latest time of what is not", () => {
    const tree = treeOf("a/old", "a/older", "a/new", "b/new");
    const times = { "a/old": 90, "a/older": 5, "a/new": 100, "b/new": 4_000_000_000 };
    for (const [path, mtimeS] of Object.entries(times)) {
      const [directory = "", name = ""] = path.split("/");
      const parent = tree.children.get(directory);
      if (parent?.kind === "directory") parent.children.set(name, file(mtimeS));
    }
    settleTimes(tree, 100);
    const found = [...tree.children.values()].flatMap((node) =>
      node.kind === "directory" ? [...node.children].map(([name, each]) => [name, timeOf(each)]) : [],
    );
    expect(found).toEqual([
      ["old", 90],
      ["older", 5],
      ["new", 90],
      ["new", 90],
    ]);
  });
});

function timeOf(node: TreeNode): number | null {
  return node.kind === "whiteout" ? null : (node.attributes?.mtimeS ?? null);
}
