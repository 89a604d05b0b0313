import { SquashError } from "@squash/sdk/errors";
import type { SandboxRecord, UpperBackend } from "../core/ports.js";

const backends: readonly UpperBackend[] = ["tmpfs", "loop", "btrfs"];

/** Reads a record back. Throws when it is not one; somebody must look at that, since sweeping it would lose a sandbox. */
export function parseRecord(id: string, text: string): SandboxRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw damaged(id, "is not JSON", cause);
  }
  const record = value as Partial<SandboxRecord> | null;
  if (typeof record !== "object" || record === null) throw damaged(id, "is not an object");
  if (record.version !== 1) throw damaged(id, `has version ${String(record.version)}, not 1`);
  if (record.id !== id) throw damaged(id, `is of sandbox "${String(record.id)}"`);
  const { cell, upper } = record;
  if (!Array.isArray(record.layers) || !Array.isArray(record.layerKeys)) throw damaged(id, "has no layers");
  if (!Number.isInteger(cell?.index) || !Number.isInteger(cell?.pid) || !/^\d+$/.test(cell?.startTime ?? ""))
    throw damaged(id, "has no cell");
  if (upper === undefined || !backends.includes(upper.backend)) throw damaged(id, "has no upper");
  if (!Array.isArray(record.network?.policy.deny)) throw damaged(id, "has no network policy");
  if (!Array.isArray(record.snapshots) || !Number.isInteger(upper.generation)) throw damaged(id, "has no stack");
  return record as SandboxRecord;
}

function damaged(id: string, what: string, cause?: unknown): SquashError {
  return new SquashError(
    "internal",
    `Cannot read sandboxes/${id}/.meta/sandbox.json: it ${what}; repair it, or move the directory away to go on without that sandbox`,
    { cause },
  );
}
