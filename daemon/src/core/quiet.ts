import { SquashError } from "@squash/sdk/errors";
import type { RunningPolicy, StackRequest } from "@squash/sdk/protocol";
import { pause } from "./pause.js";
import type { CellTask, Kernel, SandboxRecord } from "./ports.js";
import type { Sandbox } from "./sandbox.js";
import type { Sandboxes } from "./sandboxes.js";

const pollMs = 50;
const usualTimeoutS = 300;
/** processes that an error names */
const namedTasks = 20;

/** Runs changes of a sandbox during which nothing else may run in it. Commands that come meanwhile wait. */
export class Quiet {
  readonly #kernel: Pick<Kernel, "tasks">;
  readonly #sandboxes: Sandboxes;

  constructor(kernel: Pick<Kernel, "tasks">, sandboxes: Sandboxes) {
    this.#kernel = kernel;
    this.#sandboxes = sandboxes;
  }

  /**
   * Runs `work` exclusively, and only when nothing runs in the sandbox, unless it may be killed, which is up to `work`. Throws `sandbox_busy`.
   */
  async run<T>(sandbox: Sandbox, request: StackRequest, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const { running = "refuse", timeout = usualTimeoutS } = request;
    const deadline = performance.now() + timeout * 1000;
    for (;;) {
      const attempt = { policy: running, isLast: running === "refuse" || performance.now() >= deadline };
      const done = await this.#sandboxes.exclusively(sandbox.id, () => this.#attempt(sandbox, attempt, work));
      if (done !== null) return done.value;
      await pause(pollMs, signal);
      if (signal.aborted) throw new SquashError("cancelled", `Cannot wait for "${sandbox.id}": the caller went away`);
    }
  }

  async #attempt<T>(
    sandbox: Sandbox,
    { policy, isLast }: { readonly policy: RunningPolicy; readonly isLast: boolean },
    work: () => Promise<T>,
  ): Promise<{ readonly value: T } | null> {
    let release: () => void = () => undefined;
    sandbox.changing = new Promise((resolve) => (release = resolve));
    try {
      const { record } = sandbox;
      if (policy !== "kill" && sandbox.state === "ready" && record !== null) {
        const tasks = await this.#tasks(sandbox, record);
        if (tasks.length > 0 || sandbox.running.size > 0) {
          if (isLast) throw busy(sandbox, tasks);
          return null;
        }
      }
      return { value: await work() };
    } finally {
      sandbox.changing = null;
      release();
    }
  }

  #tasks(sandbox: Sandbox, { cell }: SandboxRecord): Promise<CellTask[]> {
    // a command's own start may not show yet, but it is counted
    return sandbox.running.size > 0
      ? this.#kernel.tasks(cell.index, cell.pid).catch(() => [])
      : this.#kernel.tasks(cell.index, cell.pid);
  }
}

function busy(sandbox: Sandbox, tasks: readonly CellTask[]): SquashError {
  const commands = sandbox.running.size;
  const named = tasks.slice(0, namedTasks);
  const list = named.map(({ pid, name }) => `${pid} (${name})`).join(", ");
  const what = tasks.length === 0 ? `${commands} commands run in it` : `processes run in it: ${list}`;
  return new SquashError(
    "sandbox_busy",
    `Cannot change the stack of "${sandbox.id}": ${what}; wait for them, or say "running": "kill" or "wait"`,
    { details: { commands, processes: named } },
  );
}
