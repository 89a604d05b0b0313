import { existsSync, readFileSync, readdirSync, utimesSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { isSquashError, type Client, type JobInfo, type Sandbox } from "@squash/sdk";
import { sendModule, trustByHand } from "./modules.js";
import type { TestSquashd } from "./squashd.js";

export type Outcome = "before" | "after";

/** An operation that is cut off again and again. */
export interface Trial {
  /** as crash-points-host.ts names it */
  readonly operation: string;
  /** Makes what there is before, whatever there is. */
  prepare(): Promise<void>;
  begin(): Promise<unknown>;
  /** Looks at everything that it may have changed; fails where that is neither as before nor as after. */
  outcome(): Promise<Outcome>;
  /** what the same request says when it is made once more: `done`, or a code */
  readonly again: string;
}

const base = "000-base-test";
const none = { added: 0, deleted: 0, metadata: 0, modified: 0 };
const shows = "cat /file; ls -d /home /pipe 2>/dev/null; wc -c </data";
export const one = "one\n/home\n300000\n";
export const two = "two\n/pipe\n300000\n";

/** Runs a command that must work and say nothing to its standard error. Returns what it printed. */
export async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

/** A trial's operation to its end: `done`, or the code of its failure. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "done",
    (error: unknown) => (isSquashError(error) ? error.code : (error as Error).name),
  );
}

/** Sandboxes and modules of a squashd, in the states that trials begin with. */
export class Trials {
  readonly #client: Client;
  readonly #folder: string;
  readonly #dataDir: string;

  constructor({ client, dataDir }: Pick<TestSquashd, "client" | "dataDir">) {
    this.#client = client;
    this.#dataDir = dataDir;
    this.#folder = join(dataDir, "modules");
  }

  /**
   * All operations, each on a sandbox or module of its own; with `loop` and `btrfs` those that take other steps there. A fork on the pool is a
   * snapshot and a creation, and the pool has one flush for all, so that two cannot stop in it at a time.
   */
  of(backend: "tmpfs" | "loop" | "btrfs"): Trial[] {
    const some = [this.#create(), this.#destroy(), this.#restore()];
    if (backend === "loop") return some;
    some.push(this.#snapshot(), this.#forget());
    if (backend === "btrfs") return some;
    return [
      ...some,
      this.#fork(),
      this.#change("activate", "110-a", false),
      this.#change("deactivate", "111-b", false),
      this.#change("activate", "112-c", true),
      this.#change("deactivate", "113-d", true),
      this.#collect(),
      this.#upload("210-sent", false),
      this.#upload("211-replaced", true),
      this.#convert(),
      this.#promote(),
    ];
  }

  #create(): Trial {
    const sandbox = this.#client.sandbox("created");
    return {
      operation: "Sandboxes.create created",
      prepare: () => this.#without("created"),
      begin: () => this.#client.create({ id: "created", layers: [base] }),
      outcome: async () => {
        if (!(await this.#has("created"))) return "before";
        expect(await print(sandbox, "ls /root; hostname")).toBe("created\n");
        return "after";
      },
      again: "sandbox_exists",
    };
  }

  #destroy(): Trial {
    const sandbox = this.#client.sandbox("destroyed");
    return {
      operation: "Sandboxes.destroy destroyed",
      prepare: () => this.#withHistory("destroyed"),
      begin: () => sandbox.destroy(),
      outcome: async () => {
        if (!(await this.#has("destroyed"))) return "after";
        expect(await print(sandbox, shows)).toBe(two);
        return "before";
      },
      again: "sandbox_not_found",
    };
  }

  #snapshot(): Trial {
    const sandbox = this.#client.sandbox("snapped");
    return {
      operation: "Snapshots.take snapped",
      prepare: async () => {
        await this.#withHistory("snapped");
        if (await this.#hasLabel(sandbox, "new")) await sandbox.deleteSnapshot("new");
      },
      begin: () => sandbox.snapshot({ label: "new" }),
      outcome: async () => {
        expect(await print(sandbox, shows)).toBe(two);
        if (!(await this.#hasLabel(sandbox, "new"))) return "before";
        expect(await sandbox.diff({ from: "new" })).toMatchObject({ totals: none });
        return "after";
      },
      again: "snapshot_exists",
    };
  }

  #restore(): Trial {
    const sandbox = this.#client.sandbox("restored");
    return {
      operation: "Stacks.restore restored",
      prepare: async () => {
        await this.#withHistory("restored");
        if ((await print(sandbox, shows)) !== two) await sandbox.restore("two");
      },
      begin: () => sandbox.restore("one"),
      outcome: async () => {
        const found = await print(sandbox, shows);
        expect([one, two]).toContain(found);
        return found === one ? "after" : "before";
      },
      again: "done",
    };
  }

  #fork(): Trial {
    const sandbox = this.#client.sandbox("forked");
    return {
      operation: "Forks.fork forked",
      prepare: async () => {
        await this.#withHistory("forked");
        await this.#without("fork");
      },
      begin: () => sandbox.fork({ target_id: "fork" }),
      outcome: async () => {
        expect(await print(sandbox, shows)).toBe(two);
        if (!(await this.#has("fork"))) return "before";
        expect(await print(this.#client.sandbox("fork"), `${shows}; hostname`)).toBe(`${two}fork\n`);
        return "after";
      },
      again: "sandbox_exists",
    };
  }

  #forget(): Trial {
    const sandbox = this.#client.sandbox("thinned");
    return {
      operation: "Snapshots.remove thinned",
      prepare: async () => {
        if ((await this.#has("thinned")) && !(await this.#hasLabel(sandbox, "one"))) await sandbox.destroy();
        await this.#withHistory("thinned");
      },
      begin: () => sandbox.deleteSnapshot("one"),
      outcome: async () => {
        expect(await print(sandbox, shows)).toBe(two);
        expect(await sandbox.diff({ from: "two" })).toMatchObject({ totals: none });
        return (await this.#hasLabel(sandbox, "one")) ? "before" : "after";
      },
      again: "snapshot_not_found",
    };
  }

  /** With something that runs in the sandbox, and may be killed, the change needs a new cell. */
  #change(what: "activate" | "deactivate", module: string, isBusy: boolean): Trial {
    const id = `${what}-${module.slice(4)}`;
    const sandbox = this.#client.sandbox(id);
    const isActive = async (): Promise<boolean> => (await sandbox.info()).layers.includes(module);
    const running = isBusy ? { running: "kill" as const } : {};
    return {
      operation: `Stacks.${what} ${id}`,
      prepare: async () => {
        this.#put(module);
        await this.#withHistory(id);
        if ((await isActive()) === (what === "activate"))
          await sandbox[what === "activate" ? "deactivate" : "activate"](module, { running: "kill" });
        const processes = await print(sandbox, "ps -o args");
        if (isBusy && !processes.includes("sleep 1000")) await print(sandbox, "sleep 1000 >/dev/null 2>&1 &");
      },
      begin: () => sandbox[what](module, running),
      outcome: async () => {
        expect(await print(sandbox, shows)).toBe(two);
        const active = await isActive();
        expect(await print(sandbox, "cat /opt/extra/file 2>/dev/null || echo none")).toBe(
          active ? "from the extra layer\n" : "none\n",
        );
        return active === (what === "activate") ? "after" : "before";
      },
      again: what === "activate" ? "module_active" : "module_not_active",
    };
  }

  #collect(): Trial {
    const paths = [`snapshots/${"5".repeat(32)}.erofs`, `snapshots/${"5".repeat(32)}.seal`, "cache/mkbase-aaaaaa"].map(
      (path) => join(this.#dataDir, path),
    );
    const [image = "", seal = "", scratch = ""] = paths;
    return {
      operation: "Snapshots.collect",
      prepare: () => {
        for (const path of [image, seal]) writeFileSync(path, "left by somebody");
        mkdirSync(scratch, { recursive: true });
        utimesSync(scratch, 1, 1);
        return Promise.resolve();
      },
      begin: () => this.#client.collect(),
      // a start collects as well
      outcome: () => {
        expect(paths.filter((path) => existsSync(path))).toEqual([]);
        return Promise.resolve("after");
      },
      again: "done",
    };
  }

  /** Sends `000-base-test` or, to replace that, the smaller `100-extra`. */
  #upload(name: string, replace: boolean): Trial {
    const image = (of: string): Buffer => readFileSync(join(this.#folder, `${of}.erofs`));
    return {
      operation: `ModuleHouse.put ${name}`,
      prepare: async () => {
        if (replace) expect(await sendModule(this.#client, name, image(base), { replace })).toBe("taken");
        else await codeOf(this.#client.removeModule(name));
      },
      begin: async () => {
        const code = await sendModule(this.#client, name, image("100-extra"), { replace });
        if (code !== "taken") throw Object.assign(new Error(code), { name: code });
      },
      outcome: async () => {
        const module = await this.#module(name);
        if (module === null) return replace ? Promise.reject(new Error(`${name} is gone`)) : "before";
        return module.size === image("100-extra").length ? "after" : "before";
      },
      again: replace ? "done" : "module_exists",
    };
  }

  #convert(): Trial {
    const name = "220-converted";
    return {
      operation: `job convert ${name}`,
      prepare: async () => {
        rmSync(join(this.#folder, `${name}.erofs`), { force: true });
        this.#put(name, ["squashfs"]);
        await this.#client.trustModule(name);
      },
      begin: async () => this.#ended(await this.#client.startJob({ kind: "convert", name, format: "erofs" })),
      outcome: async () => ((await this.#module(name))?.formats.includes("erofs") === true ? "after" : "before"),
      again: "module_exists",
    };
  }

  /** Replaces the module of an earlier snapshot. */
  #promote(): Trial {
    const name = "230-promoted";
    const sandbox = this.#client.sandbox("promoted");
    const promote = async (snapshot: string): Promise<void> =>
      this.#ended(await sandbox.promote({ snapshot, module: name, replace: true }));
    return {
      operation: `job promote ${name}`,
      prepare: async () => {
        await this.#withHistory("promoted");
        await promote("one");
      },
      begin: () => promote("two"),
      outcome: async () => {
        const source = (await this.#module(name))?.source;
        expect(["promote promoted@one", "promote promoted@two"]).toContain(source);
        return source === "promote promoted@two" ? "after" : "before";
      },
      again: "done",
    };
  }

  /** Null where there is none; one that is there can be used, and a sandbox with it is made now and then to see that. */
  async #module(name: string): Promise<{ size: number; source: string | null; formats: string[] } | null> {
    const found = (await this.#client.modules()).find((module) => module.name === name) ?? null;
    expect(found?.problem ?? null, name).toBe(null);
    if (found === null)
      expect(readdirSync(this.#folder).filter((file) => file.startsWith(name) && !file.endsWith(".json"))).toEqual([]);
    return found;
  }

  async #ended(job: JobInfo): Promise<void> {
    let last = job;
    for await (const next of this.#client.watchJob(job.id)) last = next;
    if (last.state !== "done") throw Object.assign(new Error(last.error ?? last.state), { name: last.code ?? "lost" });
  }

  #put(name: string, formats: readonly string[] = ["squashfs", "erofs"]): void {
    for (const format of formats) {
      const path = join(this.#folder, `${name}.${format}`);
      if (!existsSync(path)) writeFileSync(path, readFileSync(join(this.#folder, `100-extra.${format}`)));
    }
    if (!existsSync(join(this.#folder, `${name}.manifest.json`))) trustByHand(this.#folder, name);
  }

  async #has(id: string): Promise<boolean> {
    return (await this.#client.list()).some((sandbox) => sandbox.id === id);
  }

  async #hasLabel(sandbox: Sandbox, wanted: string): Promise<boolean> {
    return (await sandbox.history()).some(({ label }) => label === wanted);
  }

  async #without(id: string): Promise<void> {
    if (await this.#has(id)) await this.#client.sandbox(id).destroy();
  }

  /** A sandbox that shows `two`, with snapshots of that and of `one`. */
  async #withHistory(id: string): Promise<void> {
    if (await this.#has(id)) return;
    const layers = /^deactivate-(.)$/.exec(id) === null ? [base] : [base, id.endsWith("b") ? "111-b" : "113-d"];
    const sandbox = await this.#client.create({ id, layers });
    await print(sandbox, "head -c 300000 /dev/urandom >/data; echo one >/file");
    await sandbox.snapshot({ label: "one" });
    await print(sandbox, "echo two >/file; rm -r /home; mkfifo /pipe");
    await sandbox.snapshot({ label: "two" });
  }
}
