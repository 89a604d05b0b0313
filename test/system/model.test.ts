import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isSquashError } from "@squash/sdk";
import { killInit } from "../support/kill-init.js";
import { useSquashd } from "../support/own-squashd.js";
import type { TestSquashd } from "../support/squashd.js";
import { lacks } from "../support/needs.js";

/** What must be true of a sandbox, whatever happened before. */
interface Expected {
  /** files that its commands wrote */
  readonly files: Map<string, string>;
  execs: number;
}

type Model = Map<string, Expected>;

const ids = ["a", "b", "c"] as const;
const anyId = fc.constantFrom(...ids);
const squashd = useSquashd();

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "ok";
  } catch (error) {
    if (isSquashError(error)) return error.code;
    throw error;
  }
}

class Create implements fc.AsyncCommand<Model, TestSquashd> {
  readonly id: string;
  constructor(id: string) {
    this.id = id;
  }
  check = (): boolean => true;
  async run(model: Model, { client }: TestSquashd): Promise<void> {
    expect(await codeOf(client.create({ id: this.id }))).toBe(model.has(this.id) ? "sandbox_exists" : "ok");
    if (!model.has(this.id)) model.set(this.id, { files: new Map(), execs: 0 });
  }
  toString = (): string => `create(${this.id})`;
}

class Write implements fc.AsyncCommand<Model, TestSquashd> {
  readonly id: string;
  readonly name: string;
  readonly text: string;
  constructor(id: string, name: string, text: string) {
    this.id = id;
    this.name = name;
    this.text = text;
  }
  check = (): boolean => true;
  async run(model: Model, { client }: TestSquashd): Promise<void> {
    const expected = model.get(this.id);
    const work = client.sandbox(this.id).exec(`cat > /root/${this.name}`, { stdin: this.text });
    expect(await codeOf(work)).toBe(expected === undefined ? "sandbox_not_found" : "ok");
    if (expected === undefined) return;
    expected.files.set(this.name, this.text);
    expected.execs++;
  }
  toString = (): string => `write(${this.id}, ${this.name}, ${JSON.stringify(this.text)})`;
}

class Destroy implements fc.AsyncCommand<Model, TestSquashd> {
  readonly id: string;
  constructor(id: string) {
    this.id = id;
  }
  check = (): boolean => true;
  async run(model: Model, { client }: TestSquashd): Promise<void> {
    expect(await codeOf(client.sandbox(this.id).destroy())).toBe(model.has(this.id) ? "ok" : "sandbox_not_found");
    model.delete(this.id);
  }
  toString = (): string => `destroy(${this.id})`;
}

class Restart implements fc.AsyncCommand<Model, TestSquashd> {
  readonly signal: "SIGKILL" | "SIGTERM";
  constructor(signal: "SIGKILL" | "SIGTERM") {
    this.signal = signal;
  }
  check = (): boolean => true;
  async run(_: Model, daemon: TestSquashd): Promise<void> {
    await daemon.end(this.signal);
    await daemon.start();
  }
  toString = (): string => `restart(${this.signal})`;
}

class KillInit implements fc.AsyncCommand<Model, TestSquashd> {
  readonly id: string;
  constructor(id: string) {
    this.id = id;
  }
  check = (model: Readonly<Model>): boolean => model.has(this.id);
  async run(_: Model, daemon: TestSquashd): Promise<void> {
    const info = await daemon.client.get(this.id);
    // While squashd is down, so that the next one finds the death; no more than it forgives within a minute is found alive.
    await daemon.end("SIGKILL");
    killInit(info);
    await daemon.start();
    await expect.poll(async () => (await daemon.client.get(this.id)).restarts).toBe(info.restarts + 1);
  }
  toString = (): string => `killInit(${this.id})`;
}

/** Everything that the model says, checked through the API. */
async function compare(model: Model, { client }: TestSquashd): Promise<void> {
  const infos = await client.list();
  expect(infos.map(({ id }) => id).toSorted()).toEqual([...model.keys()].toSorted());
  for (const info of infos) {
    const expected = model.get(info.id);
    if (expected === undefined) continue;
    expect(info).toMatchObject({ state: "ready", exec_count: expected.execs });
    const { stdout } = await client
      .sandbox(info.id)
      .exec('cd /root; for f in *; do [ -f "$f" ] && echo "$f=$(cat $f)"; done; hostname');
    expected.execs++;
    const lines = [...expected.files].map(([name, text]) => `${name}=${text}`).toSorted();
    expect(stdout.trim().split("\n").toSorted()).toEqual([...lines, info.id].toSorted());
    expect((await client.sandbox(info.id).logs()).map(({ seq }) => seq)).toEqual(
      Array.from({ length: expected.execs }, (_, i) => i + 1),
    );
  }
}

const commands = fc.commands(
  [
    anyId.map((id) => new Create(id)),
    anyId.map((id) => new Destroy(id)),
    fc
      .tuple(anyId, fc.constantFrom("f", "g"), fc.stringMatching(/^[a-z0-9]{1,20}$/))
      .map(([id, name, text]) => new Write(id, name, text)),
    fc
      .tuple(anyId, fc.constantFrom("f", "g"), fc.stringMatching(/^[a-z0-9]{1,20}$/))
      .map(([id, name, text]) => new Write(id, name, text)),
    fc.constantFrom("SIGKILL" as const, "SIGTERM" as const).map((signal) => new Restart(signal)),
    anyId.map((id) => new KillInit(id)),
  ],
  { maxCommands: 30 },
);

describe.skipIf(lacks("root"))("squashd", () => {
  it(
    "keeps to the model through any sequence of creations, commands, destructions and deaths",
    { timeout: 300_000 },
    async () => {
      const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
      console.log(`seed ${seed} (set TEST_SEED to repeat)`);
      await fc.assert(
        fc.asyncProperty(commands, async (sequence) => {
          const model: Model = new Map();
          await squashd.destroyAll();
          await fc.asyncModelRun(() => ({ model, real: squashd }), sequence);
          await compare(model, squashd);
        }),
        { seed, numRuns: Number(process.env["TEST_RUNS"] ?? 30), endOnFailure: true },
      );
    },
  );
});
