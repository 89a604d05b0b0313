import type { CreateSandbox, SandboxInfo } from "@squash/sdk/protocol";
import type { SnapshotRecord } from "../ports.js";
import type { SandboxPlan } from "../sandbox-plan.js";

/** A sandbox that is to be made. */
export interface Making {
  readonly plan: SandboxPlan;
  /** The plan as it is where what `saved` says goes for what was not asked for; absent where all of it was. */
  readonly replan?: (saved: Partial<CreateSandbox>) => SandboxPlan;
  /** Makes it, with these snapshots as its history. */
  readonly make: (plan: SandboxPlan, history: readonly SnapshotRecord[]) => Promise<SandboxInfo>;
  readonly signal: AbortSignal;
}

/**
 * Who sees to it that a sandbox runs on one machine only, and that its files outlive this one. Asked by the registry, which otherwise keeps
 * sandboxes for this machine alone.
 */
export interface Custody {
  /** Makes a sandbox, with the files that are kept of it elsewhere. Throws `sandbox_leased`, `s3_*`, and what making it throws. */
  create(making: Making): Promise<SandboxInfo>;
  /** Has a cell end by itself when this machine may not run the sandbox any more. Throws `lease_lost` where it may not now. */
  guard(sandbox: { readonly id: string; readonly owner: string }, index: number): Promise<void>;
  /** Saves a sandbox, and has it removed then. Throws `s3_*`: it is as it was then. */
  destroy(id: string, remove: () => Promise<void>): Promise<void>;
  /** Whether a sandbox that was found here may run here. Throws `s3_*` where that cannot be told. */
  recover(sandbox: { readonly id: string; readonly owner: string }): Promise<"ours" | "taken">;
}
