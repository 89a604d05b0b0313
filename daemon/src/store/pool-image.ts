import { execFile } from "node:child_process";
import { open, rename, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { SquashError } from "@squash/sdk/errors";

/** in the data directory */
export const poolImage = "uppers.btrfs";
/** Source: statfs(2) */
export const btrfsMagic = 0x9123683e;
const mebibyte = 1_048_576;
/** mkfs.btrfs makes none that is smaller */
const leastMb = 256;
const deadlineMs = 60_000;
const run = promisify(execFile);

/** Where the pool is, or would be. */
export type PoolPlace =
  | { readonly kind: "image"; readonly exists: boolean }
  /** the data directory is on a btrfs itself */
  | { readonly kind: "directory"; readonly exists: boolean };

export async function findPool(dataDir: string): Promise<PoolPlace> {
  if (await isThere(join(dataDir, poolImage))) return { kind: "image", exists: true };
  const onBtrfs = (await statfs(dataDir)).type === btrfsMagic;
  if (onBtrfs) return { kind: "directory", exists: await isThere(join(dataDir, "pool", "u")) };
  return { kind: "image", exists: false };
}

/**
 * Makes the pool's image, a sparse file; a crash leaves none or a whole one. With a `sizeMb` of 0 it is four fifths of what is free on the
 * disk: a file system that is promised more than there is ends read-only. Throws `SquashError`.
 */
export async function makePoolImage(dataDir: string, sizeMb: number): Promise<void> {
  const path = join(dataDir, poolImage);
  const temporary = `${path}.tmp`;
  const { bavail, bsize } = await statfs(dataDir);
  const size = sizeMb > 0 ? sizeMb : Math.floor((bavail * bsize * 0.8) / mebibyte);
  if (size < leastMb)
    throw new SquashError(
      "kernel",
      `Cannot make "${path}" of ${size} MiB: it takes at least ${leastMb}; free some space`,
    );
  try {
    await using file = await open(temporary, "w", 0o600);
    await file.truncate(size * mebibyte);
    // one copy of the metadata: a second one on the same disk would cost each snapshot as much again
    await run("mkfs.btrfs", ["-q", "-K", "-m", "single", "-d", "single", temporary], {
      timeout: deadlineMs,
      env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin", LC_ALL: "C" },
    });
    await file.sync();
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    const reason = (cause as Error).message;
    throw new SquashError("kernel", `Cannot make the pool "${path}": ${reason}; is btrfs-progs installed?`, { cause });
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return false;
  }
}
