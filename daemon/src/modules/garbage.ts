import { lstat, readdir, rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { findLeftovers } from "./leftovers.js";
import { BlobCache } from "./oci/blob-cache.js";
import { finishPlacings } from "./placing.js";

/** of a folder that is measured; what is beyond is not counted */
const maxEntries = 1_000_000;

/**
 * Removes what is in a data directory and nobody uses: what builders, uploads and images of snapshots have left that broke off, and blobs of
 * container images which nothing has asked for within an hour. Never a module's image: one that no manifest lists may be one that somebody is
 * about to trust. Returns the paths, relative to the directory, and the bytes on the disk; with `dryRun` nothing is removed.
 */
export async function collectFiles(
  dataDir: string,
  { dryRun }: { readonly dryRun: boolean },
): Promise<{ files: string[]; bytes: number }> {
  // drafts that are still to be put in place are no garbage
  if (!dryRun) await finishPlacings(join(dataDir, "modules"));
  const blobs = await new BlobCache(dataDir).unused({ maxAgeMs: 0 });
  const paths = [
    ...(await findLeftovers(dataDir)),
    ...blobs.map(({ name }) => join(dataDir, "cache/oci/sha256", name)),
  ];
  let bytes = 0;
  for (const path of paths) {
    bytes += await diskBytes(path);
    if (!dryRun) await rm(path, { recursive: true, force: true });
  }
  return { files: paths.map((path) => relative(dataDir, path)), bytes };
}

/** What a file, or everything in a directory, takes. What goes meanwhile counts as nothing. */
async function diskBytes(path: string): Promise<number> {
  const pending = [path];
  let bytes = 0;
  for (let seen = 0; seen < maxEntries; seen++) {
    const next = pending.pop();
    if (next === undefined) break;
    const stat = await lstat(next).catch(() => null);
    bytes += (stat?.blocks ?? 0) * 512;
    if (stat?.isDirectory() === true)
      for (const name of await readdir(next).catch(() => [])) pending.push(join(next, name));
  }
  return bytes;
}
