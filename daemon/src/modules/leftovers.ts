import { lstat, readdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** longer than any build may take */
const oldMs = 24 * 60 * 60_000;

/** What builders name before it is whole: scratch directories, drafts of images, and of the manifest. */
const places = [
  { folder: "cache", pattern: /^mkbase-[A-Za-z0-9]{6}$/ },
  { folder: "modules", pattern: /^\..+\.(?:squashfs|erofs)\.[0-9a-f]{12}$/ },
  { folder: "modules", pattern: /\.manifest\.json\.tmp-[0-9a-f]{12}$/ },
];

/** Removes what builders that were killed have left in a data directory a day ago or earlier. Returns the paths. */
export async function sweepLeftovers(dataDir: string, now = Date.now()): Promise<string[]> {
  const swept: string[] = [];
  for (const { folder, pattern } of places) {
    const names = await readdir(join(dataDir, folder)).catch(onlyMissing([]));
    for (const name of names.filter((each) => pattern.test(each)).toSorted()) {
      const path = join(dataDir, folder, name);
      const stat = await lstat(path).catch(onlyMissing(null));
      if (stat === null || now - stat.mtimeMs < oldMs) continue;
      await rm(path, { recursive: true, force: true });
      swept.push(path);
    }
  }
  return swept;
}

function onlyMissing<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === "ENOENT") return value;
    throw error;
  };
}
