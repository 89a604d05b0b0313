import { SquashError } from "@squash/sdk/errors";
import { errorText } from "./error-text.js";
import type { Cell } from "./cells.js";
import type { Emit } from "./events.js";
import type { SandboxRecord } from "./ports.js";
import type { Sandbox } from "./sandbox.js";
import { planOfRecord } from "./sandbox-plan.js";
import {
  doubtStages,
  rerootStages,
  stackStages,
  swapStages,
  type SandboxDraft,
  type StageParts,
} from "./sandbox-stages.js";
import { bringUp, takeDown, type Stage } from "./stages.js";

/** How a stack is to be afterwards. */
export interface StackChange {
  /** module names, in any order */
  readonly layers: readonly string[];
  /** images of snapshots above those, topmost first */
  readonly snapshots: readonly string[];
  readonly restored: string | null;
  readonly head: string | null;
  /** whether what was written since stays; otherwise the sandbox gets an empty upper, and the old one goes when all has worked */
  readonly keepUpper: boolean;
}

/** How and when a change is made. */
export interface Circumstances {
  /** whether nothing runs in the sandbox */
  readonly isIdle: boolean;
  readonly signal: AbortSignal;
}

/**
 * Gives a sandbox another stack. Its cell gets another root where nothing runs in it; otherwise a new cell with the same number does, as an
 * overlay must not be mounted twice on one upper. All or nothing: the new layers are mounted before anything of the old stack goes, and
 * whatever fails afterwards brings the old stack back.
 */
export class Restack {
  readonly #parts: StageParts;
  readonly #emit: Emit;
  /** makes a cell for the stack */
  readonly #swap: readonly Stage<SandboxDraft>[];
  readonly #swapBack: readonly Stage<SandboxDraft>[];

  constructor(parts: StageParts, emit: Emit) {
    this.#parts = parts;
    this.#emit = emit;
    this.#swap = swapStages(parts, { keepUpper: true });
    this.#swapBack = swapStages(parts, { keepUpper: true, emit });
  }

  /** Kills what runs in the sandbox. Must run exclusively. Throws `SquashError`; the sandbox is then as it was, or `failed` with the reason. */
  async run(
    sandbox: Sandbox,
    record: SandboxRecord,
    change: StackChange,
    { isIdle, signal }: Circumstances,
  ): Promise<void> {
    const { keepUpper, layers, ...stack } = change;
    const { upper } = record;
    const generation = keepUpper ? upper.generation : upper.generation + 1;
    const plan = { ...planOfRecord(record), ...stack, requestedLayers: layers, upper: { ...upper, generation } };
    const draft: SandboxDraft = { id: sandbox.id, plan, index: record.cell.index, before: record };
    const doing = "change the stack of";
    const added = stackStages(this.#parts, { keepUpper });
    sandbox.draft = draft; // so that nobody removes what it is made of
    try {
      await bringUp(added, draft, { signal, doing, code: "change_failed" });
      await this.#replace(sandbox, record, draft, { isIdle, keepUpper }).catch(async (error) => {
        this.#note(sandbox.id, await takeDown(added, draft));
        throw error;
      });
    } finally {
      sandbox.draft = null;
    }
    await this.#forget(sandbox.id, record, { keepUpper });
  }

  async #replace(
    sandbox: Sandbox,
    record: SandboxRecord,
    draft: SandboxDraft,
    { isIdle, keepUpper }: { readonly isIdle: boolean; readonly keepUpper: boolean },
  ): Promise<void> {
    const { id, state, reason } = sandbox;
    const wasReady = state === "ready";
    const { layers, layerKeys, trust, cell, defaults } = record;
    const old: SandboxDraft = { id, plan: planOfRecord(record), index: cell.index, layers, layerKeys, trust, defaults };
    const inPlace = wasReady && isIdle;
    const told = { doing: "change the stack of", code: "change_failed" } as const;
    if (inPlace) await bringUp(doubtStages(this.#parts), draft, told);
    sandbox.state = "recovering";
    for (const running of sandbox.running) running.abort();
    try {
      if (inPlace) draft.cell = cellOfRecord(record);
      else await this.#end(old);
      const stages = inPlace ? rerootStages(this.#parts, { keepUpper }) : swapStages(this.#parts, { keepUpper });
      await bringUp(stages, draft, told);
    } catch (error) {
      // where there was nothing to go back to, it is what it was: lost or failed
      if (wasReady) await this.#back(sandbox, old);
      else Object.assign(sandbox, { state, reason });
      throw error;
    }
    sandbox.record = draft.record ?? record;
    sandbox.state = "ready";
    sandbox.reason = null;
  }

  async #end(old: SandboxDraft): Promise<void> {
    const failures = await takeDown(this.#swap, old);
    if (failures[0] !== undefined) throw cannotChange(old.id, failures[0]);
  }

  async #back(sandbox: Sandbox, old: SandboxDraft): Promise<void> {
    try {
      await takeDown(this.#swapBack, old);
      await bringUp(this.#swapBack, old);
      sandbox.record = old.record ?? sandbox.record;
      sandbox.state = "ready";
    } catch (error) {
      sandbox.state = "failed";
      sandbox.reason = `its old stack could not be brought back: ${errorText(error)}`;
    }
  }

  /** What the old stack alone needed. The change has succeeded, so failures are only told; the next start sweeps. */
  async #forget(id: string, record: SandboxRecord, { keepUpper }: { readonly keepUpper: boolean }): Promise<void> {
    const { kernel, layers, store } = this.#parts;
    const { generation } = record.upper;
    const failures: Error[] = [];
    const attempt = (work: Promise<void>): Promise<void> => work.catch((error: Error) => void failures.push(error));
    await attempt(layers.release(record.layerKeys));
    if (!keepUpper) {
      await attempt(kernel.unmountUpper(store.upperPath(id, generation)));
      await attempt(store.removeUpper(id, generation));
    }
    this.#note(id, failures);
  }

  #note(id: string, failures: readonly Error[]): void {
    for (const { message } of failures) this.#emit({ type: "leftover", sandbox: id, error: message });
  }
}

function cellOfRecord({ cell: { index, pid, startTime } }: SandboxRecord): Cell {
  return { index, process: { pid, startTime: BigInt(startTime) }, pooled: false };
}

function cannotChange(id: string, cause: Error): SquashError {
  return new SquashError("change_failed", `Cannot change the stack of "${id}": ${cause.message}`, { cause });
}
