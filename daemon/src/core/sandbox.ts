import type { SandboxInfo, SandboxState } from "@squash/sdk/protocol";
import { networkWish } from "./egress/settings.js";
import type { RootTrust } from "./secrets/root-trust.js";
import type { CellUsage, RetentionLimits, SandboxRecord, SnapshotRecord } from "./ports.js";

/** A sandbox in memory. `record` is null until the creation has reached its commit point. */
export interface Sandbox {
  readonly id: string;
  state: SandboxState;
  reason: string | null;
  record: SandboxRecord | null;
  /** what is being brought up, while it is */
  draft: {
    readonly cell?: { readonly index: number };
    readonly layers?: readonly string[];
    readonly trust?: RootTrust | undefined;
    readonly plan?: { readonly snapshots: readonly string[] };
  } | null;
  /** highest `seq` given out */
  lastSeq: number;
  /** commands that run now; aborted when the sandbox goes */
  readonly running: Set<AbortController>;
  lastActiveMs: number;
  /** out-of-memory kills of earlier cells of this sandbox */
  earlierOomKills: number;
  /** when its cells died without being asked to, lately */
  readonly deaths: number[];
  /** oldest first */
  snapshots: readonly SnapshotRecord[];
  /** while its stack is being changed: resolves at the end of that; commands wait for it */
  changing: Promise<void> | null;
}

export function newSandbox(id: string, state: SandboxState): Sandbox {
  return {
    id,
    state,
    reason: null,
    record: null,
    draft: null,
    lastSeq: 0,
    running: new Set(),
    lastActiveMs: Date.now(),
    earlierOomKills: 0,
    deaths: [],
    snapshots: [],
    changing: null,
  };
}

/** What is not kept in memory. */
export interface SandboxFacts {
  readonly usage: CellUsage;
  readonly upperBytes: number;
  readonly cgroup: string | null;
  readonly address: string | null;
  readonly address6: string | null;
  readonly retention: RetentionLimits;
  readonly grantedSecrets: readonly string[];
}

/** What routes show. Only for sandboxes with a record. */
export function sandboxInfo(sandbox: Sandbox, record: SandboxRecord, facts: SandboxFacts): SandboxInfo {
  const alive = sandbox.state === "ready";
  return {
    id: sandbox.id,
    state: sandbox.state,
    reason: sandbox.reason,
    owner: record.owner,
    task: record.task,
    layers: [...record.layers],
    backend: "cell",
    created: record.created,
    last_active: new Date(sandbox.lastActiveMs).toISOString(),
    mounted: alive,
    exec_count: sandbox.lastSeq,
    running: sandbox.running.size,
    upper_bytes: facts.upperBytes,
    upper_limit_bytes: record.upper.limitBytes,
    snapshots: sandbox.snapshots.map(({ label, created, size }) => ({ label, created, size })),
    retention: { keep_last: facts.retention.keepLast, keep_for_s: facts.retention.keepForS },
    active_snapshot: record.restored,
    forked_from: record.forkedFrom,
    cpu: record.cpu,
    memory_mb: record.memoryMb,
    pids: record.pids,
    max_lifetime_s: record.maxLifetimeS,
    ...networkWish(record.network),
    secrets: record.secrets === null || record.secrets === undefined ? null : [...record.secrets],
    secrets_granted: [...facts.grantedSecrets],
    secrets_trusted: record.trust !== undefined,
    address: alive ? facts.address : null,
    address6: alive ? facts.address6 : null,
    oom_kills: sandbox.earlierOomKills + facts.usage.oomKills,
    restarts: record.restarts,
    cgroup: alive ? facts.cgroup : null,
    pid: alive ? record.cell.pid : null,
  };
}
