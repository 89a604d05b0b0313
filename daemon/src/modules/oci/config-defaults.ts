import type { ImageDefaults } from "../../core/image-defaults.js";
import { checkedDefaults } from "../module-defaults.js";
import { splitPath } from "./entry-path.js";
import type { ImageConfig } from "./image-schema.js";
import { nodeAt, type DirectoryNode } from "./tree.js";

/** What an image's configuration says of how to start programs, as far as it holds for these files. */
export function defaultsOf({ config }: ImageConfig, root: DirectoryNode): ImageDefaults {
  const variables = (config?.Env ?? [])
    .map((word) => ({ word, equals: word.indexOf("=") }))
    .filter(({ equals }) => equals > 0)
    .map(({ word, equals }) => [word.slice(0, equals), word.slice(equals + 1)] as const);
  const defaults = checkedDefaults({
    env: Object.fromEntries(variables),
    workdir: config?.WorkingDir,
    // the group after the colon has no place in a request; commands get the groups of the user
    user: (config?.User ?? "").replace(/:.*$/s, ""),
    entrypoint: config?.Entrypoint,
    cmd: config?.Cmd,
  });
  return isMissing(root, defaults.workdir) ? { ...defaults, workdir: "" } : defaults;
}

/** Whether an image has no such directory, which docker would make; beyond a symbolic link nobody knows. */
function isMissing(root: DirectoryNode, workdir: string): boolean {
  if (workdir === "") return false;
  const names = splitPath(Buffer.from(workdir).toString("latin1"));
  return (
    names.every((_, index) => nodeAt(root, names.slice(0, index))?.kind !== "symlink") &&
    nodeAt(root, names) === undefined
  );
}
