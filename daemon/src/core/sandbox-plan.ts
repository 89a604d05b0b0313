import type { CreateSandbox } from "@squash/sdk/protocol";
import { networkSettings } from "./egress/settings.js";
import type { SandboxRecord, UpperBackend } from "./ports.js";
import { retentionLimits } from "./retention.js";

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

/** Uppers of new sandboxes. */
export interface UpperOptions {
  readonly upperLimitBytes: number;
  readonly upperBackend: UpperBackend;
}

/** The plan of a new sandbox, with what goes for those that say nothing. */
export function newPlan(request: CreateSandbox, { upperLimitBytes, upperBackend }: UpperOptions): SandboxPlan {
  const now = new Date().toISOString();
  const retention = retentionLimits(request.retention);
  return {
    version: 1,
    id: request.id,
    owner: request.owner ?? "anon",
    task: request.task ?? "",
    requestedLayers: Array.isArray(request.layers) ? request.layers : [],
    created: now,
    lastActive: now,
    cpu: request.cpu ?? 2,
    memoryMb: request.memory_mb ?? 1024,
    pids: request.pids ?? 1024,
    maxLifetimeS: request.max_lifetime_s ?? 0,
    network: networkSettings(request),
    nestedUserns: request.nested_userns ?? false,
    upper: { backend: upperBackend, limitBytes: upperLimitBytes, generation: 0 },
    snapshots: [],
    restored: null,
    head: null,
    forkedFrom: null,
    restarts: 0,
    ...(retention === undefined ? {} : { retention }),
    secrets: request.secrets ?? null,
  };
}
