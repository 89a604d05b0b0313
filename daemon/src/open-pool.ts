import { SquashError } from "@squash/sdk/errors";
import type { Config } from "./config.js";
import type { Pool } from "./kernel/pool.js";
import { findPool, makePoolImage, poolImage } from "./store/pool-image.js";

/**
 * Mounts the pool of uppers where the settings want one or an earlier squashd has used one, since sandboxes may have files in it. Returns null
 * where there is none. Throws `SquashError` that says what this machine lacks.
 */
export async function openPool(pool: Pool, config: Config): Promise<Pool | null> {
  const { dataDir, upperBackend, poolMb } = config;
  const place = await findPool(dataDir);
  if (upperBackend !== "btrfs" && !place.exists) return null;
  if (place.kind === "image" && !place.exists) await makePoolImage(dataDir, poolMb);
  try {
    await pool.mount(place.kind === "image" ? poolImage : null);
  } catch (cause) {
    const what = place.kind === "image" ? `"${dataDir}/${poolImage}"` : `"${dataDir}/pool"`;
    const hint = place.exists ? "; repair it, or move it away to go on without the sandboxes in it" : "";
    throw new SquashError("kernel", `Cannot use the pool ${what}: ${(cause as Error).message}${hint}`, { cause });
  }
  return pool;
}
