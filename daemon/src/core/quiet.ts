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
   * Runs `work` exclusively, and only when nothing runs in the sandbox, unless it may be killed, which is up to `work`: that is told whether
   * nothing runs. Throws `sandbox_busy`.
   */
  async run<T>(
    sandbox: Sandbox,
    request: StackRequest,
    signal: AbortSignal,
    work: (isIdle: boolean) => Promise<T>,
  ): Promise<T> {
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
    work: (isIdle: boolean) => Promise<T>,
  ): Promise<{ readonly value: T } | null> {
    let release: () => void = () => undefined;
    sandbox.changing = new Promise((resolve) => (release = resolve));
    try {
      const { record } = sandbox;
      const isAlive = sandbox.state === "ready" && record !== null;
      const tasks = isAlive ? await this.#tasks(sandbox, record, policy) : [];
      const isIdle = tasks?.length === 0 && sandbox.running.size === 0;
      if (isAlive && !isIdle && policy !== "kill") {
        if (isLast) throw busy(sandbox, tasks ?? []);
        return null;
      }
      return { value: await work(isIdle) };
    } finally {
      sandbox.changing = null;
      release();
    }
  }

  /** Null where they cannot be told, which is none of the caller's business where they may be killed, or commands run that are counted. */
  async #tasks(sandbox: Sandbox, { cell }: SandboxRecord, policy: RunningPolicy): Promise<CellTask[] | null> {
    try {
      return await this.#kernel.tasks(cell.index, cell.pid);
    } catch (error) {
      if (policy === "kill" || sandbox.running.size > 0) return null;
      throw error;
    }
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
