import type { NetworkSettings } from "../egress/settings.js";
import type { RetentionLimits } from "../ports.js";

/** A sandbox as it is kept in the object store: all that a machine which has nothing of it needs to make it again, and who may run it. */
export interface SandboxManifest {
  readonly id: string;
  /** grows whenever a machine takes it: who has a lower one may change nothing any more */
  readonly epoch: number;
  /** 32 hexadecimal digits, new with each write, so that no two writes have the same bytes, and a machine knows its own again */
  readonly nonce: string;
  /** null where nobody runs it */
  readonly lease: Lease | null;
  /** null from when a machine has taken the id until it saves something under it */
  readonly sandbox: SavedSandbox | null;
  readonly updated: string;
}

export interface Lease {
  /** who may run it */
  readonly machine: string;
  /** which squashd of that machine: another one after each start */
  readonly session: string;
  /** until when, by the store's clock */
  readonly untilMs: number;
}

export interface SavedSandbox {
  readonly created: string;
  readonly owner: string;
  readonly task: string;
  /** module names, topmost first */
  readonly layers: readonly string[];
  readonly cpu: number;
  readonly memoryMb: number;
  /** null where an older daemon did not say */
  readonly pids: number | null;
  readonly maxLifetimeS: number;
  readonly network: NetworkSettings;
  readonly nestedUserns: boolean;
  /** null where an older daemon did not say */
  readonly upperLimitBytes: number | null;
  /** null for all that there are */
  readonly secrets: readonly string[] | null;
  readonly retention: Partial<RetentionLimits>;
  readonly forkedFrom: string | null;
  /** label of the snapshot that has its files; null where it has none yet */
  readonly latestSnapshot: string | null;
  /** as in its record */
  readonly head: string | null;
  readonly restored: string | null;
}

/** Larger ones are refused unread. */
export const maxManifestBytes = 262_144;

/** Below the store's prefix. */
export function manifestKey(id: string): string {
  return `sandboxes/${id}/manifest.json`;
}

/** The digest of a text in UTF-8, in 64 hexadecimal digits. */
export type Sha256 = (text: string) => string;

/** The one text of a manifest: two that are the same have the same, and its last field is the digest of all the others. */
export function manifestText(manifest: SandboxManifest, sha256: Sha256): string {
  const fields = wire(manifest);
  return `${JSON.stringify({ ...fields, digest: `sha256:${sha256(JSON.stringify(fields))}` }, null, 1)}\n`;
}

function wire({ id, epoch, nonce, lease, sandbox, updated }: SandboxManifest): Record<string, unknown> {
  return {
    schema: 1,
    id,
    epoch,
    nonce,
    lease: lease && { machine: lease.machine, session: lease.session, until_ms: lease.untilMs },
    updated,
    sandbox: sandbox && wireSandbox(sandbox),
  };
}

function wireSandbox(sandbox: SavedSandbox): Record<string, unknown> {
  const { policy, limits } = sandbox.network;
  const { keepLast, keepForS } = sandbox.retention;
  return {
    created: sandbox.created,
    owner: sandbox.owner,
    task: sandbox.task,
    layers: sandbox.layers,
    cpu: sandbox.cpu,
    memory_mb: sandbox.memoryMb,
    pids: sandbox.pids,
    max_lifetime_s: sandbox.maxLifetimeS,
    network: {
      allow_net: policy.allow,
      deny_net: policy.deny,
      down_kbit: limits.downKbit,
      up_kbit: limits.upKbit,
      connections_per_s: limits.connectionsPerS,
    },
    nested_userns: sandbox.nestedUserns,
    upper_limit_bytes: sandbox.upperLimitBytes,
    secrets: sandbox.secrets,
    retention: { keep_last: keepLast ?? null, keep_for_s: keepForS ?? null },
    forked_from: sandbox.forkedFrom,
    latest_snapshot: sandbox.latestSnapshot,
    head: sandbox.head,
    restored: sandbox.restored,
  };
}
