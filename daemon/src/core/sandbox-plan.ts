import type { SandboxRecord } from "./ports.js";

/** What a record says before there is a cell. */
export type SandboxPlan = Omit<SandboxRecord, "layers" | "layerKeys" | "trust" | "cell"> & {
  /** module names as asked for; empty for the default */
  readonly requestedLayers: readonly string[];
};

/** The plan that a record came from. */
export function planOfRecord(record: SandboxRecord): SandboxPlan {
  const { layers: requestedLayers, layerKeys: _, trust: __, cell: ___, defaults: ____, ...rest } = record;
  return { ...rest, requestedLayers };
}
