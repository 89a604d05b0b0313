import type { CreateSandbox } from "@squash/sdk/protocol";
import { networkWish } from "../core/egress/settings.js";
import type { SandboxRecord } from "../core/ports.js";
import type { SandboxPlan } from "../core/sandbox-plan.js";
import type { SavedSandbox } from "../core/remote/sandbox-manifest.js";

/** What is saved of a sandbox, whose files are those of the snapshot. */
export function savedOf(record: SandboxRecord, latestSnapshot: string | null): SavedSandbox {
  return savedOfPlan({ ...record, requestedLayers: record.layers }, latestSnapshot);
}

/** The same of one that is still to be made. */
export function savedOfPlan(plan: SandboxPlan, latestSnapshot: string | null): SavedSandbox {
  return {
    created: plan.created,
    owner: plan.owner,
    task: plan.task,
    layers: plan.requestedLayers,
    cpu: plan.cpu,
    memoryMb: plan.memoryMb,
    pids: plan.pids,
    maxLifetimeS: plan.maxLifetimeS,
    network: plan.network,
    nestedUserns: plan.nestedUserns,
    upperLimitBytes: plan.upper.limitBytes,
    secrets: plan.secrets ?? null,
    retention: plan.retention ?? {},
    forkedFrom: plan.forkedFrom,
    latestSnapshot,
    head: plan.head,
    restored: plan.restored,
  };
}

/** What a request says that asks for a sandbox as it was saved. */
export function requestOf(saved: SavedSandbox): Partial<CreateSandbox> {
  const { keepLast, keepForS } = saved.retention;
  const retention = {
    ...(keepLast !== undefined && { keep_last: keepLast }),
    ...(keepForS !== undefined && { keep_for_s: keepForS }),
  };
  return {
    owner: saved.owner,
    task: saved.task,
    layers: [...saved.layers],
    cpu: saved.cpu,
    memory_mb: saved.memoryMb,
    ...(saved.pids !== null && { pids: saved.pids }),
    max_lifetime_s: saved.maxLifetimeS,
    ...networkWish(saved.network),
    nested_userns: saved.nestedUserns,
    secrets: saved.secrets === null ? null : [...saved.secrets],
    ...(Object.keys(retention).length > 0 && { retention }),
  };
}
