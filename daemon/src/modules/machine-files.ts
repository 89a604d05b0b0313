import type { DirectoryNode, TreeNode } from "./oci/tree.js";

/** Files that squashd writes into each sandbox itself, and what a package manager keeps of an earlier state. */
const files: readonly string[] = [
  ..."etc/resolv.conf etc/hostname etc/hosts etc/machine-id var/lib/dbus/machine-id".split(" "),
  ..."etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid- etc/.pwd.lock".split(" "),
  ..."var/lib/dpkg/status-old var/lib/dpkg/available-old var/lib/dpkg/lock var/lib/dpkg/lock-frontend".split(" "),
  ..."var/lib/dpkg/triggers/Lock var/cache/debconf/config.dat-old var/cache/debconf/templates.dat-old".split(" "),
];

/** Directories of which only what is in them is left out: mount points, what lasts no longer than the machine runs, caches, logs. */
const directories: readonly string[] = [
  ..."dev proc sys run tmp var/tmp var/log var/run var/lock".split(" "),
  ..."var/cache/apt var/lib/apt/lists var/cache/apk etc/apk/cache var/cache/ldconfig var/cache/man".split(" "),
  ..."root/.cache root/.npm/_cacache root/.npm/_logs".split(" "),
];

/**
 * Takes away what belongs to one machine, or can be made again, and is no content of a module. Directories that had nothing else go as well,
 * since what lies below has them.
 */
export function leaveOutMachineFiles(root: DirectoryNode): void {
  for (const path of files) takeAway(root, path.split("/"), (parent, name) => parent.children.delete(name));
  for (const path of directories)
    takeAway(root, path.split("/"), (parent, name) => {
      const node = parent.children.get(name);
      if (node?.kind !== "directory") return false;
      node.children.clear();
      // what lies below is of the same kind, so that nothing needs to be hidden
      node.isOpaque = false;
      return parent.children.delete(name);
    });
}

/** Calls `remove` with the directory that a path ends in, and then removes those above that are empty by it. */
function takeAway(
  root: DirectoryNode,
  path: readonly string[],
  remove: (parent: DirectoryNode, name: string) => boolean,
): void {
  const way: DirectoryNode[] = [root];
  for (const name of path.slice(0, -1)) {
    const next: TreeNode | undefined = way.at(-1)?.children.get(name);
    if (next?.kind !== "directory") return;
    way.push(next);
  }
  const parent = way.at(-1);
  if (parent === undefined || !remove(parent, path.at(-1) ?? "")) return;
  for (let depth = way.length - 1; depth > 0; depth--) {
    const [directory, above] = [way[depth], way[depth - 1]];
    if (directory === undefined || directory.children.size > 0 || directory.isOpaque) return;
    above?.children.delete(path[depth - 1] ?? "");
  }
}

/** Gives what was changed after `sinceS` the time of what was changed last before: of a build only its result counts, not when it was. */
export function settleTimes(root: DirectoryNode, sinceS: number): void {
  let latestS = 0;
  const late: Exclude<TreeNode, { kind: "whiteout" }>[] = [];
  for (const pending: TreeNode[] = [root]; pending.length > 0;) {
    const node = pending.pop();
    if (node === undefined || node.kind === "whiteout") continue;
    if (node.kind === "directory") pending.push(...node.children.values());
    const mtimeS = node.attributes?.mtimeS ?? 0;
    if (mtimeS >= sinceS) late.push(node);
    else latestS = Math.max(latestS, mtimeS);
  }
  for (const node of late) if (node.attributes !== null) node.attributes = { ...node.attributes, mtimeS: latestS };
}
