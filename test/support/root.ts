import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** The repository, found from this file, whether it runs as written or as compiled. */
export const repositoryRoot = findRoot(import.meta.dirname);

function findRoot(folder: string): string {
  if (existsSync(join(folder, "native/Makefile"))) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error("these files are not in a checkout of the repository");
  return findRoot(parent);
}
