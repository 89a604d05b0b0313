import fc from "fast-check";
import { expect, it } from "vitest";
import { FakeMachine } from "./testing/fake-machine.js";
import { fakeSquashd, type FakeSquashd } from "./testing/fake-squashd.js";

const never = new AbortController().signal;
const upkeep = { settleMs: 0, deepest: 3 };

type Step =
  | { readonly do: "take" | "merge" | "crash" | "collect" | "unmerged crash" }
  | { readonly do: "restore" | "remove" | "pin" | "fork"; readonly choice: number }
  | { readonly do: "keep"; readonly count: number }
  | { readonly do: "fail"; readonly operation: string };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Step>({ do: "take" }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("restore" as const), choice: fc.nat() }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom("remove" as const, "pin" as const, "fork" as const), choice: fc.nat() }),
  },
  fc.record({ do: fc.constantFrom("merge" as const, "crash" as const, "collect" as const, "unmerged crash" as const) }),
  fc.record({ do: fc.constant("keep" as const), count: fc.nat(4) }),
  fc.record({
    do: fc.constant("fail" as const),
    operation: fc.constantFrom("capture", "writeSnapshots", "writeRecord", "removeSnapshotImage", "mountLayer"),
  }),
);

/** What images hold, however they were merged: a letter for each upper that was captured. */
class Contents {
  readonly #machine: FakeMachine;
  readonly #known = new Map<string, readonly string[]>();
  #next = 0;

  constructor(machine: FakeMachine) {
    this.#machine = machine;
  }

  of(images: readonly string[]): string {
    return images.flatMap((image) => this.#one(image)).join();
  }

  #one(image: string): readonly string[] {
    const known = this.#known.get(image);
    if (known !== undefined) return known;
    const roots = this.#machine.captured.get(`snapshots/${image}.erofs`);
    if (roots === undefined) throw new Error(`image ${image} is not there`);
    const content = roots.flatMap((root) =>
      "key" in root ? this.#one(/^snapshot-([0-9a-f]{32})@/.exec(root.key)?.[1] ?? "") : [`u${this.#next++}`],
    );
    this.#known.set(image, content);
    return content;
  }
}

class World {
  readonly machine = new FakeMachine();
  squashd: FakeSquashd = fakeSquashd(this.machine, { upkeep: { settleMs: 1e6 } });
  readonly contents = new Contents(this.machine);
  /** what each snapshot had when it was taken */
  readonly wanted = new Map<string, string>();
  count = 0;

  async begin(): Promise<void> {
    await this.squashd.sandboxes.create({ id: "a" }, never);
  }

  labels(): string[] {
    return this.squashd.snapshots.history("a").map(({ label }) => label);
  }

  chosen(choice: number): string | undefined {
    const labels = this.labels();
    return labels[choice % Math.max(1, labels.length)];
  }

  /** A squashd that is killed leaves the machine as it is. */
  async restart(options: { readonly merges: boolean }): Promise<void> {
    this.machine.failing.clear();
    this.squashd = fakeSquashd(this.machine, { upkeep: options.merges ? upkeep : { settleMs: 1e6 } });
    await this.squashd.recovery.run();
  }

  async do(one: Step): Promise<void> {
    const { snapshots, stacks, forks, retention } = this.squashd;
    switch (one.do) {
      case "take": {
        const label = `s${this.count++}`;
        await snapshots.take("a", { label });
        return;
      }
      case "restore":
        await stacks.restore("a", { label: this.chosen(one.choice) ?? "none" }, never);
        return;
      case "remove":
        return snapshots.remove("a", this.chosen(one.choice) ?? "none");
      case "pin":
        await snapshots.pin("a", this.chosen(one.choice) ?? "none", one.choice % 2 === 0);
        return;
      case "fork":
        await forks.fork("a", { target_id: `f${this.count++}` }, never);
        return;
      case "keep":
        await retention.set("a", { keep_last: one.count });
        return;
      case "merge":
        await this.restart({ merges: true });
        this.squashd.upkeep.poke();
        return this.squashd.upkeep.settled();
      case "crash":
        return this.restart({ merges: false });
      case "unmerged crash": {
        await this.restart({ merges: true });
        for (const operation of ["writeSnapshots", "removeSnapshotImage"]) this.machine.failing.set(operation, 99);
        this.squashd.upkeep.poke();
        await this.squashd.upkeep.close();
        return this.restart({ merges: false });
      }
      case "collect":
        await snapshots.collect({ dryRun: false });
        return;
      case "fail":
        this.machine.failing.set(one.operation, 1);
    }
  }

  /** Everything that is named is there, with the files that it had, and in an order that can be read. */
  check(): void {
    const sandbox = this.squashd.sandboxes.find("a");
    const labels = this.labels();
    for (const { label, images, parent } of sandbox.snapshots) {
      const content = this.contents.of(images);
      const wanted = this.wanted.get(label) ?? content;
      this.wanted.set(label, wanted);
      expect([label, content]).toEqual([label, wanted]);
      if (parent !== null) expect(labels).toContain(parent);
    }
    const { head = null, restored = null } = sandbox.record ?? {};
    for (const label of [head, restored]) if (label !== null) expect(labels).toContain(label);
    for (const { record } of this.squashd.sandboxes.all()) this.contents.of(record?.snapshots ?? []);
  }
}

it("Snapshots, merges, retention and crashes in any order lose nothing and leave nothing", async () => {
  const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed} (set TEST_SEED to repeat)`);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40, size: "max" }), async (steps) => {
      const world = new World();
      await world.begin();
      for (const one of steps) {
        await world.do(one).catch((error: unknown) => {
          if (!(error instanceof Error && "code" in error)) throw error; // refused, or failed as it was told to
        });
        world.check();
      }
      await world.restart({ merges: false });
      world.check();
      const { sandboxes } = world.squashd;
      const named = new Set(
        sandboxes
          .all()
          .flatMap(({ record, snapshots }) =>
            [record?.snapshots ?? [], ...snapshots.map(({ images }) => images)].flat(),
          ),
      );
      expect(world.machine.captured.size).toBe(named.size);
      for (const { id } of sandboxes.all()) await sandboxes.destroy(id);
      expect(world.machine.state()).toEqual([]);
    }),
    { seed, numRuns: Number(process.env["TEST_RUNS"] ?? 60), endOnFailure: true },
  );
}, 300_000);
