import { describe, expect, it } from "vitest";
import { pause } from "./pause.js";
import { FakeMachine } from "./testing/fake-machine.js";
import { fakeSquashd, type FakeSquashd } from "./testing/fake-squashd.js";

const never = new AbortController().signal;
const upkeep = { settleMs: 0, deepest: 3 };

type Squashd = FakeSquashd & { readonly machine: FakeMachine };

async function squashdWith(options: Parameters<typeof fakeSquashd>[1] = {}): Promise<Squashd> {
  const machine = new FakeMachine();
  const squashd = fakeSquashd(machine, options);
  await squashd.sandboxes.create({ id: "a" }, never);
  return { ...squashd, machine };
}

/** Snapshots s0, s1, … each taken after the one before was restored: of as many images as their number says, and one. */
async function grow({ snapshots, stacks }: FakeSquashd, count: number, from = 0): Promise<void> {
  for (let at = from; at < from + count; at++) {
    await snapshots.take("a", { label: `s${at}` });
    await stacks.restore("a", { label: `s${at}` }, never);
  }
}

const depths = ({ snapshots }: FakeSquashd): number[] => snapshots.history("a").map(({ depth }) => depth);

/** The images that the machine has, by whether something names them. */
function stray({ machine, sandboxes }: Squashd): string[] {
  const named = new Set(
    sandboxes
      .all()
      .flatMap(({ record, snapshots }) => [...(record?.snapshots ?? []), ...snapshots.flatMap(({ images }) => images)]),
  );
  return [...machine.captured.keys()].filter((path) => !named.has(path.slice("snapshots/".length, -".erofs".length)));
}

describe("the upkeep of snapshots", () => {
  it("takes digests, and merges stacks that are too deep for all snapshots at once", async () => {
    const squashd = await squashdWith({ upkeep: { settleMs: 60_000, deepest: 3 } });
    await grow(squashd, 6);
    expect(depths(squashd)).toEqual([1, 2, 3, 4, 5, 6]);
    const later = { ...fakeSquashd(squashd.machine, { upkeep }), machine: squashd.machine };
    await later.recovery.run();
    const living = later.machine.records.get("a")?.snapshots;
    later.upkeep.poke();
    await later.upkeep.settled();
    expect(depths(later)).toEqual([1, 2, 3, 1, 2, 3]);
    expect(later.snapshots.history("a").every(({ sha256 }) => sha256 !== null)).toBe(true);
    expect(later.machine.records.get("a")?.snapshots).toEqual(living); // it has what it is made of
    expect(stray(later)).toEqual([]);
    // what is taken on top of the old stack stands on the merged image
    await later.snapshots.take("a", { label: "next" });
    expect(later.snapshots.history("a").at(-1)).toMatchObject({ parent: "s5", depth: 4 });
    expect(later.sandboxes.find("a").snapshots.at(-1)?.images.slice(1)).toEqual(
      later.sandboxes.find("a").snapshots.at(-2)?.images,
    );
  });

  it("gives images up that nothing is made of any more", async () => {
    const squashd = await squashdWith({ upkeep });
    await grow(squashd, 4);
    await squashd.upkeep.settled();
    expect(depths(squashd)).toEqual([1, 2, 3, 1]);
    for (const label of ["s0", "s1", "s2"]) await squashd.snapshots.remove("a", label);
    expect(squashd.machine.captured.size).toBe(5); // the living stack, and the merged one
    await squashd.stacks.restore("a", { label: "s3" }, never);
    expect(squashd.machine.captured.size).toBe(1);
    expect(stray(squashd)).toEqual([]);
    await squashd.sandboxes.destroy("a");
    expect(squashd.machine.state()).toEqual([]);
  });

  it.each(["capture", "mountLayer", "writeSnapshots", "checkSnapshotImage", "sealSnapshotImage"])(
    "that fails at %s leaves everything as it was, and says so",
    async (operation) => {
      const squashd = await squashdWith({ upkeep: { ...upkeep, settleMs: 60_000 } });
      await grow(squashd, 4);
      await squashd.stacks.restore("a", { label: "s0" }, never); // so that most images are not mounted
      const later = { ...fakeSquashd(squashd.machine, { upkeep }), machine: squashd.machine };
      await later.recovery.run();
      const stacks = later.sandboxes.find("a").snapshots.map(({ images }) => images);
      squashd.machine.failing.set(operation, 1);
      later.upkeep.poke();
      await later.upkeep.settled();
      expect(squashd.machine.failing.get(operation)).toBe(0);
      const told = later.events.map(({ type }) => type);
      expect(told.filter((type) => type === "snapshot.upkeep" || type === "snapshot.damaged")).toHaveLength(1);
      const now = later.sandboxes.find("a").snapshots.map(({ images }) => images);
      if (operation !== "sealSnapshotImage") expect(now).toEqual(stacks);
      expect(stray(later)).toEqual([]);
      await later.stacks.restore("a", { label: "s3" }, never);
      await later.sandboxes.destroy("a");
      expect(squashd.machine.state()).toEqual([]);
    },
  );

  it("can be called off, and leaves nothing of what it was doing", async () => {
    const squashd = await squashdWith({ upkeep });
    const { machine } = squashd;
    let captures = 0;
    const real = machine.capture.bind(machine);
    machine.capture = async (image, roots) => {
      if (roots.some(({ kind }) => kind === "upper")) return real(image, roots);
      captures++;
      machine.captured.set(image, roots);
      while (machine.captured.has(image)) await pause(5); // until somebody removes it
      throw new Error("removed");
    };
    await grow(squashd, 4);
    while (captures === 0) await pause(5);
    await squashd.upkeep.close();
    expect(depths(squashd)).toEqual([1, 2, 3, 4]);
    expect(stray(squashd)).toEqual([]);
    squashd.upkeep.poke();
    await squashd.upkeep.settled();
    expect(captures).toBe(1);
  });

  it("does not stop at a sandbox that goes meanwhile", async () => {
    const squashd = await squashdWith({ upkeep });
    const { machine, sandboxes } = squashd;
    const real = machine.capture.bind(machine);
    machine.capture = async (image, roots) => {
      if (roots.every(({ kind }) => kind === "layer")) await sandboxes.destroy("a");
      return real(image, roots);
    };
    await grow(squashd, 4);
    await squashd.upkeep.settled();
    expect(machine.state()).toEqual([]);
    expect(squashd.events.filter(({ type }) => type === "snapshot.upkeep")).toEqual([]);
  });

  it("tells damage apart, and refuses what is damaged", async () => {
    const squashd = await squashdWith({ upkeep });
    await grow(squashd, 3);
    await squashd.upkeep.settled();
    const [image = ""] = squashd.sandboxes.find("a").snapshots[0]?.images ?? [];
    squashd.machine.damaged.add(image);
    const before = squashd.machine.state();
    await expect(squashd.stacks.restore("a", { label: "s0" }, never)).rejects.toMatchObject({
      code: "snapshot_damaged",
    });
    await expect(squashd.forks.fork("a", { from: "s1" }, never)).rejects.toMatchObject({ code: "snapshot_damaged" });
    expect(squashd.machine.state()).toEqual(before);
    await squashd.snapshots.take("a", { label: "s3" });
    await squashd.upkeep.settled();
    expect(squashd.events).toContainEqual(expect.objectContaining({ type: "snapshot.damaged" }));
  });
});

describe("the retention of snapshots", () => {
  it("is applied after each, with one write of the list", async () => {
    const { snapshots, machine } = await squashdWith({ retention: { keepLast: 2, keepForS: 0 } });
    for (const label of ["one", "two"]) expect((await snapshots.take("a", { label })).removed).toEqual([]);
    const calls = machine.calls.length;
    expect((await snapshots.take("a", { label: "three" })).removed).toEqual(["one"]);
    expect(machine.calls.slice(calls).filter((call) => call === "writeSnapshots")).toHaveLength(2);
    expect(machine.captured.size).toBe(2);
    expect(snapshots.history("a")).toMatchObject([
      { label: "two", parent: null },
      { label: "three", parent: "two", head: true },
    ]);
  });

  it("that fails fails no snapshot, and is made up for", async () => {
    const squashd = await squashdWith({ retention: { keepLast: 1, keepForS: 0 } });
    await squashd.snapshots.take("a", { label: "one" });
    squashd.machine.afterStep = (operation) => {
      // the list with the new snapshot is there, the one without the old one is not
      if (operation !== "writeRecord") return;
      squashd.machine.failing.set("writeSnapshots", 1);
      squashd.machine.afterStep = () => undefined;
    };
    expect((await squashd.snapshots.take("a", { label: "two" })).removed).toEqual([]);
    expect(squashd.events).toContainEqual(expect.objectContaining({ type: "snapshot.upkeep" }));
    await squashd.retention.sweep();
    expect(squashd.snapshots.history("a").map(({ label }) => label)).toEqual(["two"]);
  });

  it("leaves what is restored, what a fork is being made of, and what a lost sandbox has", async () => {
    const squashd = await squashdWith();
    const { machine, snapshots, stacks, retention, forks, sandboxes } = squashd;
    for (const label of ["one", "two", "three", "four"]) await snapshots.take("a", { label });
    await stacks.restore("a", { label: "two" }, never);
    await snapshots.take("a", { label: "five" });
    const real = machine.giveRoot.bind(machine);
    machine.giveRoot = async (index, plan) => {
      machine.giveRoot = real;
      expect((await retention.set("a", { keep_last: 1 })).removed).toEqual(["three", "four"]);
      return real(index, plan);
    };
    await forks.fork("a", { from: "one" }, never);
    expect(snapshots.history("a").map(({ label }) => label)).toEqual(["one", "two", "five"]);
    await retention.sweep();
    expect(snapshots.history("a").map(({ label }) => label)).toEqual(["two", "five"]);
    for (const sandbox of sandboxes.all()) sandbox.state = "lost";
    const before = machine.state();
    await retention.sweep();
    expect(machine.state()).toEqual(before);
    expect(machine.records.get("a")).toMatchObject({ retention: { keepLast: 1 } });
  });

  it("leaves what a promotion waits for or works on", async () => {
    const { snapshots, promotions, retention, machine } = await squashdWith({
      retention: { keepLast: 1, keepForS: 0 },
    });
    await snapshots.take("a", { label: "one" });
    const release = promotions.keep({ id: "a", label: "one" });
    await snapshots.take("a", { label: "two" });
    const output = { path: "modules/draft", remove: () => Promise.resolve(machine.captured.delete("modules/draft")) };
    await promotions.write({ id: "a", label: "one" }, output, never);
    expect(machine.captured.get("modules/draft")).toMatchObject([{ kind: "layer" }]);
    await retention.sweep();
    expect(snapshots.history("a")).toHaveLength(2);
    release();
    await retention.sweep();
    expect(snapshots.history("a")).toHaveLength(1);
    expect(() => promotions.layersOf({ id: "a", label: "one" })).toThrow(/Cannot find snapshot/);
    expect(() => promotions.keep({ id: "b", label: "one" })).toThrow(/Cannot find sandbox/);
    machine.failing.set("capture", 1);
    await expect(promotions.write({ id: "a", label: "two" }, output, never)).rejects.toMatchObject({
      code: "snapshot_failed",
    });
    expect(machine.captured.has("modules/draft")).toBe(false);
  });

  it.each(["writeRecord", "writeSnapshots", "removeSnapshotImage"])(
    "and the removal of one leave a chain that the next start can read when %s is the last that is done",
    async (operation) => {
      const machine = new FakeMachine();
      const squashd = fakeSquashd(machine);
      await squashd.sandboxes.create({ id: "a" }, never);
      for (const label of ["one", "two", "three"]) await squashd.snapshots.take("a", { label });
      machine.afterStep = (done) => {
        if (done !== operation) return;
        machine.afterStep = () => undefined;
        for (const call of ["writeRecord", "writeSnapshots", "removeSnapshotImage"]) machine.failing.set(call, 99);
      };
      await squashd.snapshots.remove("a", "three").catch(() => undefined);
      machine.failing.clear();
      const later = fakeSquashd(machine);
      await later.recovery.run();
      const history = later.snapshots.history("a");
      const labels = history.map(({ label }) => label);
      expect(labels.slice(0, 2)).toEqual(["one", "two"]);
      for (const { parent } of history) expect([null, ...labels]).toContain(parent);
      expect([null, ...labels]).toContain(machine.records.get("a")?.head);
      expect(machine.captured.size).toBe(labels.length);
      await later.snapshots.take("a", { label: "next" });
      expect(later.snapshots.history("a").at(-1)).toMatchObject({ parent: "two" });
    },
  );
});

describe("history", () => {
  it("says who took a snapshot and how large it is with all below it", async () => {
    const squashd = await squashdWith();
    await squashd.snapshots.take("a", { label: "one", by: "ann", origin: "cli", pinned: true });
    await squashd.stacks.restore("a", { label: "one" }, never);
    await squashd.snapshots.take("a", { label: "two" });
    expect(squashd.snapshots.history("a")).toMatchObject([
      { by: "ann", origin: "cli", pinned: true, size: 4096, total_size: 4096, active: true, head: false },
      { by: "anon", origin: "api", pinned: false, size: 4096, total_size: 8192, active: false, head: true },
    ]);
    expect(await squashd.snapshots.pin("a", "one", false)).toMatchObject({ pinned: false });
    await expect(squashd.snapshots.pin("a", "never", true)).rejects.toMatchObject({ code: "snapshot_not_found" });
  });

  it("knows nothing of who took those of earlier versions", async () => {
    const squashd = await squashdWith();
    await squashd.snapshots.take("a", { label: "one" });
    const sandbox = squashd.sandboxes.find("a");
    sandbox.snapshots = sandbox.snapshots.map(({ by: _, origin: __, ...one }) => one);
    expect(squashd.snapshots.history("a")).toMatchObject([{ by: null, origin: null, pinned: false }]);
  });
});
