import { describe, expect, it } from "vitest";
import type { SandboxInfo } from "@squash/sdk/protocol";
import { newImage, ownerOfImage, ownerOfLayer } from "./image-ids.js";
import { FakeMachine } from "./testing/fake-machine.js";
import { fakeSquashd, type FakeSquashd } from "./testing/fake-squashd.js";
import { operationsOf, prepared, squashdWith } from "./testing/time-worlds.js";

const never = new AbortController().signal;

const changes: Record<string, (squashd: FakeSquashd) => Promise<SandboxInfo>> = {
  restore: ({ stacks }) => stacks.restore("a", { label: "two" }, never),
  activate: ({ stacks }) => stacks.activate("a", { module: "100-more" }, never),
};

describe("a change of a stack", () => {
  it.each(Object.entries(changes))("by %s that fails anywhere leaves the old one, which works", async (_, change) => {
    for (const operation of await operationsOf(change)) {
      const squashd = await prepared();
      const { machine, sandboxes } = squashd;
      const before = machine.state();
      const info = await sandboxes.get("a");
      machine.failing.set(operation, 1);
      const failed = await change(squashd).then(
        () => false,
        () => true,
      );
      const after = await sandboxes.get("a");
      if (!failed) {
        // what goes wrong with the old stack when the new one stands is told, and swept by the next start
        expect(squashd.events).toContainEqual(expect.objectContaining({ type: "leftover" }));
        expect(after).toMatchObject({ state: "ready" });
        continue;
      }
      expect({ operation, ...after }).toEqual({ operation, ...info, pid: after.pid, last_active: after.last_active });
      expect({ operation, state: machine.state() }).toEqual({ operation, state: before });
      await sandboxes.exec("a", { cmd: "true" }, never);
      await change(squashd);
      await sandboxes.destroy("a");
      expect(machine.state()).toEqual([]);
    }
  });

  it.each(Object.entries(changes))(
    "by %s keeps the cell where nothing runs in it, and only then",
    async (_, change) => {
      const squashd = await prepared();
      const { machine, sandboxes } = squashd;
      const { pid } = await sandboxes.get("a");
      expect(await change(squashd)).toMatchObject({ pid, state: "ready" });
      expect(machine.cells.get(0)?.root).toMatchObject({ again: true });
      machine.tasksInside = [{ pid: 7, name: "server" }];
      const after = await squashd.stacks.restore("a", { label: "one", running: "kill" }, never);
      expect(after.pid).not.toBe(pid);
      expect(machine.cells.get(0)?.root?.again).not.toBe(true);
    },
  );

  it.each(Object.entries(changes))("by %s that cannot even be noted down leaves the cell alone", async (_, change) => {
    const squashd = await prepared();
    const { pid } = await squashd.sandboxes.get("a");
    squashd.machine.failing.set("writeRecord", 1);
    await expect(change(squashd)).rejects.toMatchObject({ code: "change_failed" });
    expect(await squashd.sandboxes.get("a")).toMatchObject({ pid, state: "ready", restarts: 0 });
  });

  it.each(Object.entries(changes))(
    "by %s that squashd does not survive leaves the old stack, rebuilt",
    async (_, change) => {
      const squashd = await prepared();
      const { machine, sandboxes } = squashd;
      const { layers, snapshots } = await sandboxes.get("a");
      const old = machine.records.get("a");
      // the cell has the new root by then, and nobody has written that down
      const cut = new Promise<never>(() => undefined);
      machine.afterStep = (operation) => {
        if (operation === "giveRoot") machine.halt = cut;
      };
      void change(squashd);
      await expect.poll(() => machine.halt === cut).toBe(true);
      machine.afterStep = () => undefined;
      machine.halt = Promise.resolve();
      const later = fakeSquashd(machine);
      await later.recovery.run();
      const found = await later.sandboxes.get("a");
      expect(found).toMatchObject({ state: "ready", restarts: 1, layers, snapshots });
      expect(machine.records.get("a")).toMatchObject({ snapshots: old?.snapshots, upper: old?.upper });
      expect(machine.cells.get(0)?.root?.again).not.toBe(true);
      await later.sandboxes.destroy("a");
      expect(machine.state()).toEqual([]);
    },
  );

  it("has files that stay forget their originals where a layer goes, and only there", async () => {
    const { machine, sandboxes, stacks } = await prepared();
    const forgetting = (): number => machine.calls.filter((call) => call === "forgetOrigins").length;
    await stacks.activate("a", { module: "100-more" }, never);
    await stacks.restore("a", { label: "two" }, never);
    await stacks.activate("a", { module: "100-more" }, never);
    expect(forgetting()).toBe(0);
    const before = machine.state();
    machine.failing.set("forgetOrigins", 1);
    await expect(stacks.deactivate("a", { module: "100-more" }, never)).rejects.toMatchObject({
      code: "change_failed",
    });
    expect(machine.state()).toEqual(before);
    expect(await sandboxes.get("a")).toMatchObject({ state: "ready", layers: ["100-more", "000-base"] });
    await stacks.deactivate("a", { module: "100-more" }, never);
    expect(forgetting()).toBe(2);
    const root = machine.calls.lastIndexOf("giveRoot");
    expect(machine.calls.lastIndexOf("forgetOrigins")).toBeLessThan(root);
    machine.tasksInside = [{ pid: 7, name: "server" }];
    await stacks.activate("a", { module: "100-more" }, never).catch(() => undefined);
    await stacks.activate("a", { module: "100-more", running: "kill" }, never);
    await stacks.deactivate("a", { module: "100-more", running: "kill" }, never);
    expect(forgetting()).toBe(3);
  });

  it("has them forget in a rebuild as well where an image is another one, as of a base that was replaced", async () => {
    const { machine, sandboxes } = await squashdWith(["a"]);
    const record = machine.records.get("a");
    if (record === undefined) throw new Error("it has no record");
    const restart = async (layerKeys: readonly string[]): Promise<void> => {
      machine.records.set("a", { ...record, layerKeys, cell: { ...record.cell, bootId: "another" } });
      await fakeSquashd(machine).recovery.run();
    };
    await restart(record.layerKeys);
    expect(machine.calls).not.toContain("forgetOrigins");
    await restart(["000-base@0.squashfs"]);
    expect(machine.calls).toContain("forgetOrigins");
    expect(machine.records.get("a")?.layerKeys).toEqual(record.layerKeys);
    expect((await sandboxes.get("a")).state).toBe("ready");
  });

  it("goes to the new generation of the upper, and leaves nothing of the old one", async () => {
    const { machine, sandboxes, stacks } = await prepared();
    await stacks.restore("a", { label: "two" }, never);
    expect([...machine.uppers]).toEqual(["/sandboxes/a/upper.2"]);
    expect([...machine.images]).toEqual(["/sandboxes/a/upper.2.img"]);
    expect(machine.records.get("a")).toMatchObject({ restored: "two", head: "two", upper: { generation: 2 } });
    expect(machine.cells.get(0)?.root).toMatchObject({ fresh: true, named: false });
    await sandboxes.destroy("a");
    expect(machine.state()).toEqual([]);
  });

  it("brings a lost sandbox back from a snapshot", async () => {
    const { machine, snapshots } = await squashdWith(["a"]);
    await snapshots.take("a", { label: "saved" });
    machine.cells.clear();
    machine.layers.clear();
    machine.uppers.clear();
    const later = fakeSquashd(machine);
    await later.recovery.run();
    expect(await later.sandboxes.get("a")).toMatchObject({ state: "lost", snapshots: [{ label: "saved" }] });
    expect(await later.stacks.restore("a", { label: "saved" }, never)).toMatchObject({ state: "ready", reason: null });
    await later.sandboxes.destroy("a");
    expect(machine.state()).toEqual([]);
  });

  it("is refused while something runs, and lets commands that come meanwhile wait", async () => {
    const { machine, sandboxes, stacks } = await prepared();
    machine.tasksInside = [{ pid: 7, name: "server" }];
    await expect(stacks.restore("a", { label: "one" }, never)).rejects.toMatchObject({
      code: "sandbox_busy",
      message: /7 \(server\)/,
      details: { commands: 0, processes: [{ pid: 7, name: "server" }] },
    });
    const restored = stacks.restore("a", { label: "one", running: "kill" }, never);
    await Promise.resolve();
    const command = sandboxes.exec("a", { cmd: "true" }, never);
    await restored;
    expect(await command).toMatchObject({ exit_code: 0 });
  });

  it("waits no longer than it was told to, and not for a caller that has gone", async () => {
    const { machine, stacks } = await prepared();
    machine.tasksInside = [{ pid: 7, name: "server" }];
    const request = { label: "one", running: "wait" } as const;
    await expect(stacks.restore("a", { ...request, timeout: 0.1 }, never)).rejects.toMatchObject({
      code: "sandbox_busy",
    });
    const gone = new AbortController();
    const waiting = stacks.restore("a", request, gone.signal);
    gone.abort();
    await expect(waiting).rejects.toMatchObject({ code: "cancelled" });
  });
});

describe("a snapshot", () => {
  it("that fails anywhere leaves the sandbox running, and nothing of itself", async () => {
    const take = ({ snapshots }: FakeSquashd): Promise<unknown> => snapshots.take("a", { label: "three" });
    for (const operation of (await operationsOf(take)).filter((name) => name !== "thawCell")) {
      const squashd = await prepared();
      const before = squashd.machine.state();
      squashd.machine.failing.set(operation, 1);
      await expect(take(squashd)).rejects.toMatchObject({ code: "snapshot_failed" });
      expect({ operation, state: squashd.machine.state() }).toEqual({ operation, state: before });
      await take(squashd);
    }
  });

  it("thaws again where that failed first", async () => {
    const squashd = await prepared();
    squashd.machine.failing.set("thawCell", 2);
    await squashd.snapshots.take("a", { label: "three" });
    expect(squashd.machine.frozen.size).toBe(0);
  });

  it("stays as long as something names its images, and no longer", async () => {
    const { machine, sandboxes, snapshots, forks, stacks } = await prepared();
    const [fork] = await forks.fork("a", { from: "two" }, never);
    await snapshots.remove("a", "one");
    await snapshots.remove("a", "two");
    expect(machine.captured.size).toBe(2); // the fork's
    await sandboxes.destroy("a");
    expect(machine.captured.size).toBe(2);
    expect(fork?.forked_from).toBe("a@two");
    await snapshots.take(fork?.id ?? "", { label: "own" });
    await stacks.restore(fork?.id ?? "", { label: "own" }, never);
    await sandboxes.destroy(fork?.id ?? "");
    expect(machine.state()).toEqual([]);
  });

  it("is not swept while a sandbox's own list cannot be read", async () => {
    const { machine } = await prepared();
    machine.records.clear();
    machine.snapshots.clear();
    machine.damage = "is not JSON";
    const later = fakeSquashd(machine);
    await later.recovery.run();
    expect(machine.captured.size).toBe(2);
    expect(await later.snapshots.collect({ dryRun: false })).toEqual({ images: [], files: [], bytes: 0 });
  });

  it("left by a crash is swept by the next start, and so is a second upper", async () => {
    const { machine } = await prepared();
    const before = machine.state();
    machine.captured.set("snapshots/0123.erofs", []);
    machine.uppers.add("/sandboxes/a/upper.9");
    machine.frozen.add(0);
    await fakeSquashd(machine).recovery.run();
    expect(machine.state()).toEqual(before);
  });

  it("gets the label that is asked for, else the time", async () => {
    const { snapshots } = await squashdWith(["a"]);
    expect((await snapshots.take("a", {})).snapshot).toMatch(/^\d{8}-\d{6}$/);
    await snapshots.take("a", { label: "x" });
    await expect(snapshots.take("a", { label: "x" })).rejects.toMatchObject({ code: "snapshot_exists" });
  });
});

describe("a snapshot on the pool", () => {
  async function onPool(): Promise<FakeSquashd & { machine: FakeMachine }> {
    return squashdWith(["a"], { upperBackend: "btrfs" });
  }

  it("is a subvolume that says whose owners are stored in it, taken after a flush and while nothing runs", async () => {
    const { machine, snapshots, stacks } = await onPool();
    const start = machine.calls.length;
    await snapshots.take("a", { label: "one" });
    expect(machine.calls.slice(start, start + 4)).toEqual(["flushPool", "freezeCell", "snapshotUpper", "thawCell"]);
    const [image] = [...machine.captured.keys()];
    expect(image).toMatch(/^pool\/s\/[0-9a-f]{32}\.0$/);
    await stacks.restore("a", { label: "one" }, never);
    const [key = ""] = machine.cells.get(0)?.root?.layers ?? [];
    expect(key).toMatch(/^snapshot-[0-9a-f]{32}\.0@0\.subvolume$/);
    expect(ownerOfLayer(key)).toBe(0);
    await snapshots.take("a", { label: "two" });
    expect(machine.captured.size).toBe(2);
  });

  it("is made into one image where the stack is deep, of which nothing is left where that fails", async () => {
    const { machine, sandboxes, snapshots, stacks } = await onPool();
    const again = async (round: number): Promise<void> => {
      await snapshots.take("a", { label: `s${round}` });
      await stacks.restore("a", { label: `s${round}` }, never);
    };
    for (let round = 0; round < 16; round++) await again(round);
    const before = machine.state();
    for (const operation of ["flushPool", "snapshotUpper", "mountLayer", "capture", "writeSnapshots"]) {
      machine.failing.set(operation, 1);
      await expect(snapshots.take("a", { label: "deep" })).rejects.toMatchObject({ code: "snapshot_failed" });
      expect({ operation, state: machine.state() }).toEqual({ operation, state: before });
    }
    await snapshots.take("a", { label: "deep" });
    expect(snapshots.history("a").at(-1)).toMatchObject({ label: "deep", depth: 1 });
    expect([...machine.captured.keys()].filter((path) => path.endsWith(".erofs"))).toHaveLength(1);
    await sandboxes.destroy("a");
    expect(machine.state()).toEqual([]);
  });
});

describe("names of images", () => {
  it("tell whose owners are stored in them", () => {
    expect(ownerOfImage(newImage(null))).toBeNull();
    expect(ownerOfImage(newImage(16_383))).toBe(16_383);
    for (const key of ["000-base@1.erofs", "snapshot-x.1@0.subvolume", `snapshot-${newImage(null)}@0.erofs`])
      expect(ownerOfLayer(key)).toBeNull();
  });
});
