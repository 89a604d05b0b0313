import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { ErrorCode } from "@squash/sdk/protocol";

/** One step of bringing a sandbox up. `down` is idempotent and works on what a crash left, so it serves rollback, destroy and sweep. */
export interface Stage<Draft extends { readonly id: string }> {
  readonly name: string;
  up(draft: Draft): Promise<void>;
  down(draft: Draft): Promise<void>;
}

/** Milliseconds of each stage that ran, in order. */
export type Timings = Record<string, number>;

export interface BringUpOptions {
  readonly signal?: AbortSignal;
  readonly timings?: Timings;
  /** what is being done, for the message of a failure; @default "create sandbox" */
  readonly doing?: string;
  /** code of a failure that is nobody's fault; @default "create_failed" */
  readonly code?: ErrorCode;
}

/** Runs every `up` in order; on failure takes down what was started, the failing stage included, and throws. */
export async function bringUp<D extends { readonly id: string }>(
  stages: readonly Stage<D>[],
  draft: D,
  options: BringUpOptions = {},
): Promise<void> {
  for (const [index, stage] of stages.entries()) {
    const start = performance.now();
    try {
      options.signal?.throwIfAborted();
      await stage.up(draft);
    } catch (cause) {
      const leftovers = await takeDown(stages.slice(0, index + 1), draft);
      throw stageError(stage.name, draft.id, { ...options, cause, leftovers });
    }
    if (options.timings !== undefined) options.timings[stage.name] = performance.now() - start;
  }
}

/** Runs every `down` in reverse order, never stops at a failure, and returns all failures. */
export async function takeDown<D extends { readonly id: string }>(
  stages: readonly Stage<D>[],
  draft: D,
  timings?: Timings,
): Promise<Error[]> {
  const failures: Error[] = [];
  for (const stage of stages.toReversed()) {
    const start = performance.now();
    try {
      await stage.down(draft);
    } catch (cause) {
      failures.push(
        new Error(`stage "${stage.name}": ${cause instanceof Error ? cause.message : String(cause)}`, { cause }),
      );
    }
    if (timings !== undefined) timings[stage.name] = performance.now() - start;
  }
  return failures;
}

function stageError(
  stage: string,
  id: string,
  facts: BringUpOptions & { readonly cause: unknown; readonly leftovers: readonly Error[] },
): SquashError {
  const { cause, leftovers, doing = "create sandbox" } = facts;
  const details = {
    stage,
    ...(isSquashError(cause) ? cause.details : {}),
    ...(leftovers.length > 0 ? { leftovers: leftovers.map((error) => error.message) } : {}),
  };
  if (facts.signal?.aborted === true)
    return new SquashError("cancelled", `Cannot ${doing} "${id}": the caller went away`, { cause, details });
  const reason = cause instanceof Error ? cause.message : String(cause);
  // What the caller got wrong (a module that is missing or damaged) keeps its own code.
  const code = isSquashError(cause) && cause.code !== "kernel" ? cause.code : (facts.code ?? "create_failed");
  return new SquashError(code, `Cannot ${doing} "${id}" at stage "${stage}": ${reason}`, { cause, details });
}
