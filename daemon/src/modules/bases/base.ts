import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Cleanup } from "../cleanup.js";
import type { PackOptions } from "../pack.js";

/** What every builder of a base gets. */
export interface BaseOptions extends PackOptions {
  /** told in a line what begins, and where that is known which part of all is done */
  readonly progress: (line: string, fraction?: number) => void;
}

/** Makes a directory for one build, which goes on every path out: on the disk of the modules, closed to others. */
export async function scratchDirectory(dataDir: string, cleanup: Cleanup): Promise<string> {
  const cache = join(dataDir, "cache");
  await mkdir(cache, { recursive: true, mode: 0o700 });
  const directory = await mkdtemp(join(cache, `mkbase-${process.pid}-`));
  cleanup.defer(() => rm(directory, { recursive: true, force: true }));
  return directory;
}
