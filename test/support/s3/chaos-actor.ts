import { ConnectionError, isSquashError, type Sandbox } from "@squash/sdk";
import { patience } from "../patience.js";
import type { ChaosEvent } from "./chaos-history.js";
import { pauseMs, type ChaosMachine, type Tally } from "./chaos-machine.js";
import { lookIn, newWrite, writeIn } from "./chaos-writer.js";

const deadlineMs = 15_000;
/** the code of what nobody heard */
const unheard = "unheard";

/** What actors share. */
export interface ChaosWorld {
  readonly machines: readonly ChaosMachine[];
  readonly events: ChaosEvent[];
  /** of what squashd was asked for, with what came of it */
  readonly tally: Tally;
  readonly random: (below: number) => number;
  /** whether anything may still happen to machines */
  readonly isOn: () => boolean;
  /** a number that no write has had */
  readonly nextSeq: () => number;
  /** told of a sandbox that was made of another one */
  readonly forked: (id: string) => void;
}

interface Place {
  readonly machine: ChaosMachine;
  readonly sandbox: Sandbox;
}

/** Uses one sandbox, wherever it is, one request after the other, and notes what it is told. */
export class ChaosActor {
  readonly #id: string;
  readonly #world: ChaosWorld;
  #place: Place | null = null;
  /** lines that are known to be in it */
  #lines: readonly string[] = [];
  /** which have said that another one has it, or that they cannot know, since it was had last */
  readonly #refused = new Set<ChaosMachine>();
  #incarnation = 0;
  #failures = 0;
  #count = 0;
  /** what was asked last, with what came of it */
  #last = "";

  constructor(id: string, world: ChaosWorld) {
    this.#id = id;
    this.#world = world;
  }

  /** One more step, whatever comes of it. */
  async step(): Promise<void> {
    if (this.#place === null) return this.#find();
    const chance = this.#world.random(100);
    if (chance < 58) await this.#write(this.#place);
    else if (chance < 66) await this.#look(this.#place);
    else if (chance < 78) await this.#snapshot(this.#place);
    else if (chance < 82) await this.#forget(this.#place);
    else if (chance < 85) await this.#fork(this.#place);
    else await this.#destroy(this.#place);
  }

  /** Once nothing happens to machines any more: twice it is saved where it is, and goes on elsewhere as it was. Throws where it cannot be. */
  async end(): Promise<void> {
    const end = Date.now() + 120_000 * patience;
    for (let saves = 0; saves < 2;) {
      if (Date.now() > end) throw new Error(`"${this.#id}" cannot be had, or be saved, at the end: ${this.#last}`);
      if (this.#place === null) await this.#find();
      else {
        await this.#look(this.#place);
        const place = this.#present(); // looking at it may have found that it is gone
        if (place !== null && (await this.#destroy(place))) saves++;
      }
    }
  }

  #present(): Place | null {
    return this.#place;
  }

  /** Has it made by some machine, if that may. */
  async #find(): Promise<void> {
    const { machines, random } = this.#world;
    const open = machines.filter((machine) => machine.isUp && !this.#refused.has(machine));
    // now and then any, up or not
    const machine = open[random(open.length + 1)] ?? machines[random(machines.length)];
    if (machine === undefined) return;
    if (random(4) === 0) this.#sometimesKill(machine);
    this.#incarnation++;
    const sandbox = machine.squashd.client.sandbox(this.#id);
    const request = { id: this.#id, layers: ["000-base-test"], memory_mb: 128, deadlineMs };
    const code = await this.#ask("create", () => machine.squashd.client.create(request));
    if (code === "ok" || code === "sandbox_exists") {
      this.#place = { machine, sandbox };
      this.#failures = 0;
      this.#lines = [];
      this.#refused.clear();
      await this.#look(this.#place);
      return;
    }
    const isRefused = code === "sandbox_leased" || code === "s3_unreachable";
    if (isRefused) this.#refused.add(machine);
    if (isRefused && open.length > 1) return;
    this.#refused.clear();
    await pauseMs(300 + random(700));
  }

  async #write({ sandbox }: Place): Promise<void> {
    const { random, nextSeq, events } = this.#world;
    const written = newWrite(nextSeq(), 1 + random(random(10) === 0 ? 300_000 : 3_000));
    events.push({ kind: "write", id: this.#id, seq: written.seq, digest: written.digest });
    await this.#ask("write", async () => this.#saw(await writeIn(sandbox, written)));
  }

  async #look({ sandbox }: Place): Promise<void> {
    await this.#ask("look", async () => {
      const { lines, content } = await lookIn(sandbox);
      this.#saw(lines, content);
    });
  }

  async #snapshot({ machine, sandbox }: Place): Promise<void> {
    this.#sometimesKill(machine);
    const lines = this.#lines;
    const label = `mine-${this.#incarnation}-${++this.#count}`;
    const code = await this.#ask("snapshot", async () => {
      const { durable } = await sandbox.snapshot({ label }, { wait: "durable", deadlineMs });
      if (durable !== true) throw new Error("a snapshot is not what it was to be");
    });
    if (code === "ok") this.#world.events.push({ kind: "saved", id: this.#id, how: `snapshot ${label}`, lines });
  }

  async #forget({ sandbox }: Place): Promise<void> {
    await this.#ask("forget", async () => {
      const history = await sandbox.history({ deadlineMs });
      const one = history[this.#world.random(Math.max(1, history.length))];
      if (one !== undefined) await sandbox.deleteSnapshot(one.label, { deadlineMs });
    });
  }

  async #fork({ sandbox }: Place): Promise<void> {
    const { events, forked, nextSeq } = this.#world;
    const lines = this.#lines;
    const target = `fork-${nextSeq()}`;
    const code = await this.#ask("fork", () => sandbox.fork({ target_id: target }, { deadlineMs }));
    if (code !== "ok") return;
    events.push({ kind: "forked", id: target, from: this.#id, lines });
    forked(target);
  }

  /** Whether it was. */
  async #destroy({ machine, sandbox }: Place): Promise<boolean> {
    this.#sometimesKill(machine);
    const lines = this.#lines;
    const code = await this.#ask("destroy", () => sandbox.destroy({ deadlineMs }));
    if (code !== "ok") return false;
    this.#world.events.push({ kind: "saved", id: this.#id, how: "destroy", lines });
    this.#place = null;
    return true;
  }

  /** While the next request is under way. */
  #sometimesKill(machine: ChaosMachine): void {
    const { random, isOn } = this.#world;
    if (isOn() && random(30) === 0) machine.killIn(random(400));
  }

  #saw(lines: readonly string[], content?: string): void {
    const { events } = this.#world;
    const incarnation = this.#incarnation;
    events.push({ kind: "seen", id: this.#id, incarnation, lines, ...(content !== undefined && { content }) });
    this.#lines = lines;
  }

  /** Returns "ok" or the code of the failure; where nobody is there, or it is not, or it fails again and again, it is looked for elsewhere. */
  async #ask(what: string, work: () => Promise<unknown>): Promise<string> {
    const code = await work().then(() => "ok", codeOf);
    this.#last = `${what} ${code}`;
    if (code !== unheard) this.#world.tally.add(`${what} ${code}`);
    if (code === "ok") this.#failures = 0;
    else if (code === unheard || code === "sandbox_not_found" || ++this.#failures > 3) this.#place = null;
    if (code !== "ok") await pauseMs(50);
    return code;
  }
}

function codeOf(error: unknown): string {
  if (isSquashError(error)) return error.code;
  if (error instanceof ConnectionError && /ECONNREFUSED|ENOENT/.test(error.message)) return unheard;
  if (!(error instanceof Error)) return String(error);
  return error.name === "Error" ? error.message : error.name;
}
