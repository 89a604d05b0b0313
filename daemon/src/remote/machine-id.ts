import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeAtomically } from "../store/atomic-file.js";

/** What this machine is called in the bucket: made once, and kept in the data directory, of which there must not be two copies in use. */
export async function machineId(dataDir: string): Promise<string> {
  const path = join(dataDir, "machine-id");
  const found = (await readFile(path, "utf8").catch(() => "")).trim();
  if (/^[0-9a-f]{32}$/.test(found)) return found;
  const made = randomBytes(16).toString("hex");
  await writeAtomically(path, `${made}\n`, { durable: true });
  return made;
}
