import { readFile } from "node:fs/promises";
import type { DoctorCheck } from "@squash/sdk/protocol";

/** What one look at the machine gave. */
export interface Finding {
  readonly ok: boolean;
  /** what was found */
  readonly found: string;
  /** what to do, and what an optional lack costs; only shown when it is lacking */
  readonly advice?: string;
}

/** Makes a check of a look; a look that fails itself is a lack. */
export async function check(
  name: string,
  required: boolean,
  look: () => Promise<Finding> | Finding,
): Promise<DoctorCheck> {
  try {
    const { ok, found, advice } = await look();
    return { name, ok, required, detail: ok || advice === undefined ? found : `${found}; ${advice}` };
  } catch (error) {
    return { name, ok: false, required, detail: `cannot be checked: ${(error as Error).message}` };
  }
}

/** Content of a small file of the kernel; null when it is not there. */
export async function readOptional(path: string): Promise<string | null> {
  try {
    return (await readFile(path, "utf8")).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}
