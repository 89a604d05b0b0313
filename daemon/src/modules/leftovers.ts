import { lstat, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { finishPlacings } from "./placing.js";

/** longer than any build may take */
const oldMs = 24 * 60 * 60_000;

/** What builders and uploads name before it is whole, with the number of the process that makes it where that is in the name. */
const places = [
  { folder: "cache", pattern: /^(?:mkbase|job)-(?:(\d+)-)?[A-Za-z0-9]{6}$/ },
  { folder: "modules", pattern: /^\..+\.(?:squashfs|erofs|upload)\.(?:(\d+)-)?[0-9a-f]{12}$/ },
  { folder: "modules", pattern: /\.(?:manifest|placing)\.json\.tmp-(?:(\d+)-)?[0-9a-f]{12}$/ },
  { folder: "snapshots", pattern: /^[0-9a-f]{32}\.seal\.tmp-(?:(\d+)-)?[0-9a-f]{12}$/ },
  { folder: "cache", pattern: /^verified\.json\.tmp-(?:(\d+)-)?[0-9a-f]{12}$/ },
];

export interface SweepOptions {
  readonly now?: number;
  /** whether this process makes nothing yet, so that what has its number is of one that is gone; @default false */
  readonly atStart?: boolean;
}

/**
 * Puts in place what was being put there when its maker was killed, and removes what else such have left in a data directory: what names a
 * process that is gone, and what was left a day ago or earlier. Returns the paths that were removed.
 */
export async function sweepLeftovers(dataDir: string, options: SweepOptions = {}): Promise<string[]> {
  await finishPlacings(join(dataDir, "modules"));
  const found = await findLeftovers(dataDir, options);
  for (const path of found) await rm(path, { recursive: true, force: true });
  return found;
}

/** What `sweepLeftovers` would remove. */
export async function findLeftovers(dataDir: string, options: SweepOptions = {}): Promise<string[]> {
  const { now = Date.now(), atStart = false } = options;
  const found: string[] = [];
  for (const { folder, pattern } of places) {
    const names = await readdir(join(dataDir, folder)).catch(onlyMissing([]));
    for (const name of names.toSorted()) {
      const match = pattern.exec(name);
      if (match === null) continue;
      const path = join(dataDir, folder, name);
      const stat = await lstat(path).catch(onlyMissing(null));
      if (stat === null || (now - stat.mtimeMs < oldMs && !isMakerGone(match[1], atStart))) continue;
      found.push(path);
    }
  }
  return found;
}

function isMakerGone(maker: string | undefined, atStart: boolean): boolean {
  if (maker === undefined) return false;
  const pid = Number(maker);
  if (pid === process.pid) return atStart;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}

function onlyMissing<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === "ENOENT") return value;
    throw error;
  };
}
