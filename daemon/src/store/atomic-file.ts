import { randomBytes } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";

/**
 * Replaces a file in one step: whoever reads it, also after a crash of squashd, finds the old or the new content. `durable` waits until it
 * would survive a power failure as well; without it the kernel writes it out within seconds. What is left of one that a crash cut off has the
 * number of its process in its name, for those who sweep.
 */
export async function writeAtomically(
  path: string,
  content: string,
  options: { readonly durable: boolean; readonly mode?: number },
): Promise<void> {
  const temporary = `${path}.tmp-${process.pid}-${randomBytes(6).toString("hex")}`;
  try {
    const file = await open(temporary, "wx", options.mode ?? 0o600);
    try {
      await file.writeFile(content);
      if (options.durable) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
