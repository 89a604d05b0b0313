import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";

const dayMs = 86_400_000;
/** what nobody has gone on with for so long is given up; the bucket's own leftovers go with its next sweep */
const keptMs = { part: 7 * dayMs, upload: 7 * dayMs, sent: 90 * dayMs } as const;

/** Removes what an earlier squashd has left on its way to and from the bucket, but not what is worth going on with. */
export async function sweepFolder(folder: string): Promise<void> {
  for (const name of await namesIn(folder)) {
    const path = join(folder, name);
    // made for one try, and finished by none
    if (name.endsWith(".out") || name.includes(".tmp-")) await rm(path, { force: true });
    else if (name.endsWith(".part")) await removeOld(path, keptMs.part);
    else if (name.endsWith(".upload")) await removeOld(path, keptMs.upload);
  }
  for (const name of await namesIn(join(folder, "sent"))) await removeOld(join(folder, "sent", name), keptMs.sent);
}

async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
}

async function removeOld(path: string, ageMs: number): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (found !== null && Date.now() - found.mtimeMs > ageMs) await rm(path, { force: true });
}
