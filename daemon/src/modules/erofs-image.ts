import { createHash } from "node:crypto";
import { lstat, readdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { RunTool } from "./run-tool.js";

const maxSpecialFiles = 1_000;

/** What a directory tree holds that a packer must know beforehand. */
export interface TreeFacts {
  /** devices and sockets, relative to the tree, by name */
  readonly specialFiles: readonly string[];
  /** seconds since 1970, of the file that was modified last */
  readonly latestMtimeS: number;
}

/**
 * Walks a tree without following symbolic links. With `keepWhiteouts`, overlayfs' marks of removed files are no devices. Throws `build_failed`
 * when it holds more devices and sockets than any base has.
 */
export async function surveyTree(
  root: string,
  signal?: AbortSignal,
  options: { readonly keepWhiteouts?: boolean } = {},
): Promise<TreeFacts> {
  const specialFiles: string[] = [];
  let latestMtimeS = Math.floor((await lstat(root)).mtimeMs / 1000);
  const pending = [root];
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    signal?.throwIfAborted();
    const entries = await readdir(directory, { withFileTypes: true });
    const stats = await Promise.all(entries.map((entry) => lstat(join(directory, entry.name))));
    for (const [index, entry] of entries.entries()) {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) pending.push(path);
      const isWhiteout = options.keepWhiteouts === true && entry.isCharacterDevice() && stats[index]?.rdev === 0;
      if (!isWhiteout && (entry.isBlockDevice() || entry.isCharacterDevice() || entry.isSocket()))
        specialFiles.push(relative(root, path));
      latestMtimeS = Math.max(latestMtimeS, Math.floor((stats[index]?.mtimeMs ?? 0) / 1000));
    }
    if (specialFiles.length > maxSpecialFiles) {
      throw new SquashError(
        "build_failed",
        `Cannot pack "${root}": it has over ${maxSpecialFiles} devices and sockets, it is no root file system`,
      );
    }
  }
  return { specialFiles: specialFiles.toSorted(), latestMtimeS };
}

/**
 * Makes an erofs image of a directory: times, owners, modes, xattrs and hard links as they are, without devices and sockets; the same tree
 * and name give the same bytes.
 */
export async function makeErofs(
  run: RunTool,
  source: { directory: string; name: string; facts: TreeFacts },
  target: string,
  options: { readonly deadlineMs: number; readonly signal?: AbortSignal },
): Promise<void> {
  const { directory, name, facts } = source;
  const excluded = facts.specialFiles.map((file) => `--exclude-path=${file}`);
  await run(["mkfs.erofs", "--quiet", "-zlz4hc", "-C4096", `-U${uuidOf(name)}`, ...excluded, target, directory], {
    op: "pack erofs image of",
    target: name,
    // -T would give every file this time, and Python recompiles a module whose time is not as it was; this only caps times, at the latest
    env: { SOURCE_DATE_EPOCH: String(facts.latestMtimeS) },
    ...options,
  });
}

/** A UUID that depends on nothing but the name. Source: RFC 9562 §5.8, version 8. */
export function uuidOf(name: string): string {
  const bytes = createHash("sha256").update(`squash module ${name}`).digest().subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = bytes.toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
