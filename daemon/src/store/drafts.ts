import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** What `writeAtomically`, the disk thread and makers of images name what is not whole yet. */
const draftName = /\.tmp(?:-(?:\d+-)?[0-9a-f]{12})?$/;

/** Removes drafts in a folder that need not exist. */
export async function sweepDrafts(folder: string): Promise<void> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
    throw error;
  });
  for (const name of names) if (draftName.test(name)) await rm(join(folder, name), { force: true });
}
