import { expect } from "vitest";
import { simulateReboot } from "../support/reboot.js";
import type { TestSquashd } from "../support/squashd.js";
import { place, program } from "./modules.js";
import { apply, lineOf, type Operation } from "./operations.js";
import { Replica, type ReplicaOptions } from "./replica.js";
import { differences, parseReport } from "./survey.js";

/** What is done to squashd. Numbers choose among what there is, counted round. */
export type Step =
  | { readonly do: "files"; readonly sandbox: number; readonly operations: readonly Operation[] }
  | { readonly do: "snapshot" | "toggle"; readonly sandbox: number }
  | { readonly do: "restore" | "forget"; readonly sandbox: number; readonly snapshot: number }
  /** from now where `snapshot` is null */
  | { readonly do: "fork"; readonly sandbox: number; readonly snapshot: number | null }
  | { readonly do: "collect" | "kill" | "killHost" | "reboot" };

const added = "300-more";
const base = ["000-base-test", "150-files"];
const mostSandboxes = 3;

/** A squashd beside the model of what is in it. */
export class World {
  readonly #squashd: TestSquashd;
  readonly #options: ReplicaOptions;
  readonly #replicas: Replica[] = [];
  #counter = 0;
  /** steps and operations so far */
  done = 0;

  constructor(squashd: TestSquashd, options: ReplicaOptions) {
    this.#squashd = squashd;
    this.#options = options;
  }

  /** Away with all sandboxes; one new one. */
  async start(): Promise<void> {
    const { client } = this.#squashd;
    for (const { id } of await client.list()) await client.sandbox(id).destroy();
    this.#replicas.length = 0;
    const id = `w${++this.#counter}`;
    await client.create({ id, layers: base, memory_mb: 128 });
    this.#replicas.push(new Replica(id, { modules: base, images: [] }, this.#options));
  }

  async run(step: Step): Promise<void> {
    this.done++;
    switch (step.do) {
      case "files":
        return this.#operate(this.#pick(step.sandbox), step.operations);
      case "snapshot":
        return this.#snapshot(this.#pick(step.sandbox));
      case "toggle":
        return this.#toggle(this.#pick(step.sandbox));
      case "restore":
      case "forget":
        return this.#withLabel(this.#pick(step.sandbox), step.snapshot, step.do);
      case "fork":
        return this.#fork(this.#pick(step.sandbox), step.snapshot);
      case "collect":
        expect(await this.#squashd.client.collect()).toMatchObject({ images: [], files: [] });
        return;
      case "kill":
        await this.#squashd.end("SIGKILL");
        await this.#squashd.start();
        return this.checkAll();
      case "killHost":
        return this.#killHost();
      case "reboot":
        return this.#reboot();
    }
  }

  /** Everything of every sandbox, and each snapshot once more. */
  async finish(): Promise<void> {
    await this.checkAll();
    for (const replica of this.#replicas) for (const label of replica.labels) await this.#restore(replica, label);
    expect(await this.#squashd.client.collect({ dry_run: true })).toMatchObject({ images: [], files: [] });
  }

  async checkAll(): Promise<void> {
    const { client } = this.#squashd;
    const ids = (await client.list()).map(({ id, state }) => `${id} ${state}`);
    expect(ids.toSorted()).toEqual(this.#replicas.map(({ id }) => `${id} ready`).toSorted());
    for (const replica of this.#replicas) await this.#operate(replica, []);
  }

  async #operate(replica: Replica, operations: readonly Operation[]): Promise<void> {
    this.done += operations.length;
    const stdin = operations.map((one) => `${lineOf(one)}\n`).join("");
    const sandbox = this.#squashd.client.sandbox(replica.id);
    const { exit_code, stdout, stderr } = await sandbox.exec([program, place], { stdin });
    expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
    const { results, files } = parseReport(stdout);
    const wanted = operations.map((one) => apply(replica.overlay, one));
    const told = (all: readonly unknown[]): string[] =>
      operations.map((one, at) => `${lineOf(one)}: ${String(all[at])}`);
    expect(told(results)).toEqual(told(wanted));
    expect(differences(replica.overlay, files)).toEqual([]);
    const history = (await sandbox.history()).map(({ label, parent }) => [label, parent]);
    expect(history).toEqual(replica.history);
  }

  async #snapshot(replica: Replica): Promise<void> {
    const label = `s${++this.#counter}`;
    await this.#squashd.client.sandbox(replica.id).snapshot({ label });
    replica.snapshot(label);
    await this.#operate(replica, []);
  }

  async #toggle(replica: Replica): Promise<void> {
    const sandbox = this.#squashd.client.sandbox(replica.id);
    await (replica.modules.includes(added) ? sandbox.deactivate(added) : sandbox.activate(added));
    replica.toggle(added);
    await this.#operate(replica, []);
  }

  async #withLabel(replica: Replica, number: number, what: "restore" | "forget"): Promise<void> {
    const label = replica.labels[number % Math.max(1, replica.labels.length)];
    if (label === undefined) return;
    if (what === "restore") return this.#restore(replica, label);
    await this.#squashd.client.sandbox(replica.id).deleteSnapshot(label);
    replica.forget(label);
    await this.#operate(replica, []);
  }

  async #restore(replica: Replica, label: string): Promise<void> {
    await this.#squashd.client.sandbox(replica.id).restore(label);
    replica.restore(label);
    await this.#operate(replica, []);
  }

  async #fork(origin: Replica, snapshot: number | null): Promise<void> {
    const { client } = this.#squashd;
    if (this.#replicas.length >= mostSandboxes) {
      const gone = this.#replicas.findIndex((one) => one !== origin);
      const [oldest] = this.#replicas.splice(gone, 1);
      await client.sandbox(oldest?.id ?? "").destroy();
    }
    const label = snapshot === null ? undefined : origin.labels[snapshot % Math.max(1, origin.labels.length)];
    const id = `w${++this.#counter}`;
    await client.sandbox(origin.id).fork({ target_id: id, ...(label === undefined ? {} : { from: label }) });
    const fork = new Replica(id, origin.moment(label), this.#options);
    this.#replicas.push(fork);
    await this.#operate(fork, []);
    await this.#operate(origin, []);
  }

  async #killHost(): Promise<void> {
    await this.#squashd.killHost();
    await this.checkAll();
  }

  async #reboot(): Promise<void> {
    await simulateReboot(this.#squashd);
    await this.#squashd.start();
    await this.checkAll();
  }

  #pick(number: number): Replica {
    const replica = this.#replicas[number % this.#replicas.length];
    if (replica === undefined) throw new Error("there is no sandbox");
    return replica;
  }
}
