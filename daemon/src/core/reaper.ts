import { isSquashError } from "@squash/sdk/errors";
import type { Sandboxes } from "./sandboxes.js";

const intervalMs = 1_000;

/** Destroys sandboxes whose lifetime is over, counted from their creation. Returns how to stop it. */
export function startReaper(sandboxes: Sandboxes, failed: (id: string, error: unknown) => void): () => void {
  const busy = new Set<string>();
  const timer = setInterval(() => {
    const now = Date.now();
    for (const { id, record, state } of sandboxes.all()) {
      if (record === null || record.maxLifetimeS === 0 || state === "destroying" || busy.has(id)) continue;
      if (now - Date.parse(record.created) <= record.maxLifetimeS * 1000) continue;
      busy.add(id);
      sandboxes
        .destroy(id)
        .catch((error: unknown) => {
          if (!isSquashError(error) || error.code !== "sandbox_not_found") failed(id, error);
        })
        .finally(() => busy.delete(id));
    }
  }, intervalMs);
  timer.unref();
  return () => clearInterval(timer);
}
