import { SquashError } from "@squash/sdk/errors";
import type { ModuleInfo } from "@squash/sdk/protocol";
import type { Sandbox } from "./sandbox.js";

/** A module as its files and its manifest describe it. */
export type ModuleFacts = Omit<ModuleInfo, "used_by">;

/** Where modules are kept. */
export interface ModuleStore {
  /** All modules, by name. */
  list(): Promise<ModuleFacts[]>;
  /** Throws `module_not_found`. */
  facts(name: string): Promise<ModuleFacts>;
  /**
   * Keeps others from changing the module while `work` runs, which may take long: it can be used meanwhile. Throws `module_in_use` where
   * somebody does so already.
   */
  reserve<T>(name: string, what: string, work: () => Promise<T>): Promise<T>;
  /**
   * Runs `work`, which must be short, while nobody can begin to use the module: whoever wants to waits. `check`, which is called once nobody
   * can begin any more, throws to call it off.
   */
  close<T>(name: string, check: () => void, work: () => Promise<T>): Promise<T>;
  /** Removes its images and its manifest. */
  remove(name: string): Promise<void>;
}

/**
 * Which sandboxes use a module. A sandbox that is being made counts from before it looks for the module on, so that a removal either sees it,
 * or is seen by it.
 */
function usersOf(sandboxes: readonly Sandbox[], module: string): string[] {
  return sandboxes
    .filter(({ state, record, draft }) => {
      const kept = state === "lost" ? [] : (record?.layers ?? []);
      return kept.includes(module) || draft?.layers?.includes(module) === true;
    })
    .map(({ id }) => id)
    .toSorted();
}

/** The modules of this machine, and who uses them. */
export class Modules {
  readonly #store: ModuleStore;
  readonly #sandboxes: { all(): readonly Sandbox[] };

  constructor(store: ModuleStore, sandboxes: { all(): readonly Sandbox[] }) {
    this.#store = store;
    this.#sandboxes = sandboxes;
  }

  async list(): Promise<ModuleInfo[]> {
    return (await this.#store.list()).map((facts) => this.#info(facts));
  }

  /** Throws `module_not_found`. */
  async get(name: string): Promise<ModuleInfo> {
    return this.#info(await this.#store.facts(name));
  }

  /** Throws `module_in_use`, with the ids, where sandboxes use it, and `module_not_found`. */
  async remove(name: string): Promise<void> {
    await this.#store.reserve(name, "removed", async () => {
      await this.#store.facts(name);
      await this.replace(name, () => this.#store.remove(name));
    });
  }

  /** Does what takes the present images of a module away, unless a sandbox uses them. Throws `module_in_use` with the ids. */
  replace<T>(name: string, work: () => Promise<T>): Promise<T> {
    return this.#store.close(name, () => this.#refuseUsed(name), work);
  }

  #refuseUsed(name: string): void {
    const users = usersOf(this.#sandboxes.all(), name);
    if (users.length === 0) return;
    const some = users.length > 5 ? `${users.slice(0, 5).join(", ")} and ${users.length - 5} more` : users.join(", ");
    throw new SquashError(
      "module_in_use",
      `Cannot take module "${name}" away: it is in use by ${some}; destroy them first`,
      {
        details: { used_by: users },
      },
    );
  }

  #info(facts: ModuleFacts): ModuleInfo {
    return { ...facts, used_by: usersOf(this.#sandboxes.all(), facts.name) };
  }
}
