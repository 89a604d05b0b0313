import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { ModuleRequest, RestoreRequest, SandboxInfo } from "@squash/sdk/protocol";
import type { LabelsInUse } from "./labels-in-use.js";
import type { SandboxRecord } from "./ports.js";
import type { Quiet } from "./quiet.js";
import type { Restack, StackChange } from "./restack.js";
import type { Sandbox } from "./sandbox.js";
import type { Sandboxes } from "./sandboxes.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { findSnapshot } from "./snapshots.js";
import { bounds } from "./validate.js";

/** Fetches a snapshot from elsewhere, for a sandbox that does not have it. Throws `snapshot_not_found`. */
export type FetchSnapshot = (id: string, label: string, signal: AbortSignal) => Promise<void>;

export interface StackParts {
  readonly sandboxes: Sandboxes;
  readonly quiet: Quiet;
  readonly restack: Restack;
  readonly images: SnapshotImages;
  readonly labels: LabelsInUse;
  readonly fetchSnapshot?: FetchSnapshot;
}

/** Changes of living sandboxes' stacks. */
export class Stacks {
  readonly #parts: StackParts;

  constructor(parts: StackParts) {
    this.#parts = parts;
  }

  /** Adds a module; what was written stays. Throws `module_active`, `sandbox_busy`, `invalid_request` for one too many, and what mounting it throws. */
  activate(id: string, request: ModuleRequest, signal: AbortSignal): Promise<SandboxInfo> {
    const { module } = request;
    return this.#change(id, request, signal, (sandbox) => {
      const record = this.#parts.sandboxes.mustBeReady(sandbox);
      if (record.layers.includes(module))
        throw new SquashError("module_active", `Cannot activate "${module}" in "${id}": it is in the stack already`);
      if (record.layers.length >= bounds.layers)
        throw new SquashError(
          "invalid_request",
          `Cannot activate "${module}" in "${id}": a stack has at most ${bounds.layers} modules; deactivate one first`,
        );
      return { ...stackOf(record), layers: [...record.layers, module], keepUpper: true };
    });
  }

  /** Takes a module away; what was written stays. Throws `module_not_active`, `sandbox_busy`, `invalid_request` for the last one. */
  deactivate(id: string, request: ModuleRequest, signal: AbortSignal): Promise<SandboxInfo> {
    const { module } = request;
    return this.#change(id, request, signal, (sandbox) => {
      const record = this.#parts.sandboxes.mustBeReady(sandbox);
      if (!record.layers.includes(module))
        throw new SquashError("module_not_active", `Cannot deactivate "${module}" in "${id}": it is not in the stack`);
      if (record.layers.length === 1)
        throw new SquashError("invalid_request", `Cannot deactivate "${module}" in "${id}": it is the only module`);
      const layers = record.layers.filter((name) => name !== module);
      return { ...stackOf(record), layers, keepUpper: true };
    });
  }

  /** Brings files and modules of a snapshot back, exactly; also for a sandbox that is lost or failed. Throws `snapshot_not_found`, `sandbox_busy`. */
  async restore(id: string, request: RestoreRequest, signal: AbortSignal): Promise<SandboxInfo> {
    const { label } = request;
    const { sandboxes, labels, images } = this.#parts;
    await this.#fetch(id, label, signal);
    let before: readonly string[] = [];
    const change = (): Promise<SandboxInfo> =>
      this.#change(id, request, signal, (sandbox) => {
        const snapshot = findSnapshot(sandbox, label);
        before = sandbox.record?.snapshots ?? [];
        const { layers, images: snapshots } = snapshot;
        return { layers, snapshots, restored: label, head: label, keepUpper: false };
      });
    const info = await labels.use(sandboxes.find(id), label, change);
    await images.release(before);
    return info;
  }

  async #fetch(id: string, label: string, signal: AbortSignal): Promise<void> {
    const { sandboxes, fetchSnapshot } = this.#parts;
    const sandbox = sandboxes.find(id);
    if (fetchSnapshot === undefined || sandbox.snapshots.some((one) => one.label === label)) return;
    await fetchSnapshot(id, label, signal).catch((error: unknown) => {
      // which labels there are here helps more than that it is nowhere else
      if (isSquashError(error) && error.code === "snapshot_not_found") findSnapshot(sandbox, label);
      throw error;
    });
  }

  async #change(
    id: string,
    request: ModuleRequest | RestoreRequest,
    signal: AbortSignal,
    plan: (sandbox: Sandbox) => StackChange,
  ): Promise<SandboxInfo> {
    const { sandboxes, quiet, restack } = this.#parts;
    const sandbox = sandboxes.find(id);
    plan(sandbox); // what cannot be is refused before anything is waited for
    await quiet.run(sandbox, request, signal, async (isIdle) => {
      const change = plan(sandbox);
      const { record, state } = sandbox;
      if (record === null || !["ready", "lost", "failed"].includes(state)) {
        sandboxes.mustBeReady(sandbox);
        throw new Error(`sandbox "${id}" is ready without a record`);
      }
      await restack.run(sandbox, record, change, { isIdle, signal });
    });
    return sandboxes.get(id);
  }
}

function stackOf({ snapshots, restored, head }: SandboxRecord): Pick<StackChange, "snapshots" | "restored" | "head"> {
  return { snapshots, restored, head };
}
