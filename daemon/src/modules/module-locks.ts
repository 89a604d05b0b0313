import { SquashError } from "@squash/sdk/errors";

/** Who is changing which module. */
export class ModuleLocks {
  readonly #reserved = new Map<string, string>();
  readonly #closed = new Map<string, Promise<unknown>>();

  /** Throws `module_in_use` where somebody changes the module already; `what` says in one word what becomes of it. */
  async reserve<T>(name: string, what: string, work: () => Promise<T>): Promise<T> {
    const other = this.#reserved.get(name);
    if (other !== undefined)
      throw new SquashError("module_in_use", `Cannot change module "${name}": it is being ${other}; try again later`);
    this.#reserved.set(name, what);
    try {
      return await work();
    } finally {
      this.#reserved.delete(name);
    }
  }

  /** Runs `work` alone; `opened` waits meanwhile. `check` is called first, without anything in between. */
  async close<T>(name: string, check: () => void, work: () => Promise<T>): Promise<T> {
    await this.opened(name);
    check();
    const running = work();
    this.#closed.set(
      name,
      running.catch(() => undefined),
    );
    try {
      return await running;
    } finally {
      this.#closed.delete(name);
    }
  }

  isClosed(name: string): boolean {
    return this.#closed.has(name);
  }

  /** Waits until nobody keeps it closed. */
  async opened(name: string): Promise<void> {
    for (let running = this.#closed.get(name); running !== undefined; running = this.#closed.get(name)) await running;
  }
}
