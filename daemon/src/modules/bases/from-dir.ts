import { realpath, stat } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { packDirectory, type ModuleManifest } from "../pack.js";
import type { BaseOptions } from "./base.js";

/** Name of the module that holds a directory: `000-` in front unless it has a number. */
export function baseName(name: string): string {
  return /^\d{3}-/.test(name) ? name : `000-${name}`;
}

/** Packs a directory of the host. Throws `invalid_request` when it is none, or holds the data directory. */
export async function buildFromDirectory(path: string, options: BaseOptions): Promise<ModuleManifest> {
  const [directory, dataDir] = await Promise.all([resolved(path), whereItWillBe(options.dataDir)]);
  if (!(await stat(directory)).isDirectory()) {
    throw new SquashError("invalid_request", `Cannot pack "${path}": it is no directory`);
  }
  if (`${dataDir}${sep}`.startsWith(directory.endsWith(sep) ? directory : `${directory}${sep}`)) {
    throw new SquashError("invalid_request", `Cannot pack "${path}": the data directory "${dataDir}" lies in it`);
  }
  options.progress(`packing ${directory}`);
  return packDirectory(directory, options);
}

async function resolved(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (cause) {
    throw new SquashError("invalid_request", `Cannot use directory "${path}": ${(cause as Error).message}`, { cause });
  }
}

/** The real path of what may not be there yet. */
async function whereItWillBe(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || path === dirname(path)) throw error;
    return join(await whereItWillBe(dirname(path)), basename(path));
  }
}
