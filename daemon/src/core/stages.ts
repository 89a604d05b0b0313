import { SquashError, isSquashError } from "@squash/sdk/errors";

/** One step of bringing a sandbox up. `down` is idempotent and works on what a crash left, so it serves rollback, destroy and sweep. */
export interface Stage<Draft extends { readonly id: string }> {
  readonly name: string;
  up(draft: Draft): Promise<void>;
  down(draft: Draft): Promise<void>;
}

/** Milliseconds of each stage that ran, in order. */
export type Timings = Record<string, number>;

/** Runs every `up` in order; on failure takes down what was started, the failing stage included, and throws. */
export async function bringUp<D extends { readonly id: string }>(
  stages: readonly Stage<D>[],
  draft: D,
  options: { readonly signal?: AbortSignal; readonly timings?: Timings } = {},
): Promise<void> {
  for (const [index, stage] of stages.entries()) {
    const start = performance.now();
    try {
      options.signal?.throwIfAborted();
      await stage.up(draft);
    } catch (cause) {
      const leftovers = await takeDown(stages.slice(0, index + 1), draft);
      throw stageError(stage.name, draft.id, { cause, leftovers, aborted: options.signal?.aborted === true });
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
  facts: { readonly cause: unknown; readonly leftovers: readonly Error[]; readonly aborted: boolean },
): SquashError {
  const { cause, leftovers, aborted } = facts;
  const details = {
    stage,
    ...(isSquashError(cause) ? cause.details : {}),
    ...(leftovers.length > 0 ? { leftovers: leftovers.map((error) => error.message) } : {}),
  };
  if (aborted)
    return new SquashError("cancelled", `Cannot create sandbox "${id}": the caller went away`, { cause, details });
  const reason = cause instanceof Error ? cause.message : String(cause);
  // What the caller got wrong (a module that is missing or damaged) keeps its own code.
  const code = isSquashError(cause) && cause.code !== "kernel" ? cause.code : "create_failed";
  return new SquashError(code, `Cannot create sandbox "${id}" at stage "${stage}": ${reason}`, { cause, details });
}
