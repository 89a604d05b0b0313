import { describe, expect, it } from "vitest";
import { FakeMachine } from "./testing/fake-machine.js";
import { success } from "./testing/success.js";
import { fakeSquashd } from "./testing/fake-squashd.js";

const never = new AbortController().signal;

async function machineWith(ids: readonly string[], upperBackend: "tmpfs" | "loop" = "tmpfs"): Promise<FakeMachine> {
  const machine = new FakeMachine();
  const { sandboxes } = fakeSquashd(machine, { upperBackend });
  for (const id of ids) await sandboxes.create({ id }, never);
  return machine;
}

function pidOf(machine: FakeMachine, index: number): number {
  return machine.cells.get(index)?.process.pid ?? -1;
}

describe("Recovery.run()", () => {
  it("adopts what lives, and goes on counting", async () => {
    const machine = await machineWith(["a", "b"]);
    await machine.appendLog("a", { seq: 7 } as never);
    const before = machine.state();
    const { sandboxes, recovery, layers } = fakeSquashd(machine);
    await recovery.run();
    expect(machine.state()).toEqual(before);
    expect(layers.mounted).toBe(1);
    machine.runCommand = () => Promise.resolve(success("hi"));
    expect((await sandboxes.exec("a", { cmd: "echo" }, never)).seq).toBe(8);
    await sandboxes.destroy("a");
    await sandboxes.destroy("b");
    expect(machine.state()).toEqual([]);
  });

  it("rebuilds a dead one on its upper, with its old cell number", async () => {
    const machine = await machineWith(["a", "b"]);
    machine.cells.delete(1);
    const { sandboxes, recovery } = fakeSquashd(machine);
    await recovery.run();
    expect(await sandboxes.get("b")).toMatchObject({ state: "ready", restarts: 1 });
    expect(machine.cells.get(1)?.root).toMatchObject({ fresh: false, hostname: "b" });
    await sandboxes.destroy("b");
    await sandboxes.destroy("a");
    expect(machine.state()).toEqual([]);
  });

  it("rebuilds one whose deadline passed while a snapshot was taken that was cut off", async () => {
    const machine = await machineWith(["a", "b"]);
    await machine.setDeadline(1, machine.bootMs() + 1_000);
    await machine.freezeCell(1, true);
    machine.advance(2_000);
    const { sandboxes, recovery } = fakeSquashd(machine);
    await recovery.run();
    expect(await sandboxes.get("a")).toMatchObject({ state: "ready", restarts: 0 });
    expect(await sandboxes.get("b")).toMatchObject({ state: "ready", restarts: 1 });
  });

  it("rebuilds the only one, whose layers are mounted still", async () => {
    const machine = await machineWith(["a"]);
    machine.cells.clear();
    const { sandboxes, recovery } = fakeSquashd(machine);
    await recovery.run();
    expect(await sandboxes.get("a")).toMatchObject({ state: "ready", restarts: 1, reason: null });
  });

  it("lists as lost what had its files in memory, and lets the name be used again", async () => {
    const machine = await machineWith(["a"]);
    machine.cells.clear();
    machine.uppers.clear();
    machine.netns.clear();
    machine.layers.clear();
    const { sandboxes, recovery } = fakeSquashd(machine);
    await recovery.run();
    expect((await sandboxes.get("a")).state).toBe("lost");
    expect((await sandboxes.create({ id: "a" }, never)).state).toBe("ready");
    await sandboxes.destroy("a");
    expect(machine.state()).toEqual([]);
  });

  it("brings image-backed ones back after a restart of the machine", async () => {
    const machine = await machineWith(["a"], "loop");
    machine.cells.clear();
    machine.uppers.clear();
    machine.netns.clear();
    machine.layers.clear();
    const { sandboxes, recovery } = fakeSquashd(machine);
    await recovery.run();
    expect(await sandboxes.get("a")).toMatchObject({ state: "ready", restarts: 1 });
  });

  it("sweeps half-made sandboxes, unowned cells and unused layers", async () => {
    const machine = await machineWith(["a", "half"]);
    machine.records.delete("half");
    await machine.makeCell(40);
    await machine.mountLayer("stray@1.squashfs");
    const { recovery, events } = fakeSquashd(machine);
    await recovery.run();
    expect(machine.state()).toEqual([
      "cell 0",
      "directory a",
      "layer 000-base@1.squashfs",
      "netns squash-a",
      "network 0 a open",
      "record a",
      "upper /sandboxes/a/upper.0",
    ]);
    expect(events.filter((event) => event.type === "swept").map((event) => `${event.what} ${event.name}`)).toEqual([
      "cell 1",
      "cell 40",
      "sandbox half",
      "layer stray@1.squashfs",
    ]);
  });
});

describe("Recovery.cellDied()", () => {
  it("rebuilds, and gives up on one that dies again and again", async () => {
    const machine = new FakeMachine();
    const { sandboxes, recovery } = fakeSquashd(machine);
    await sandboxes.create({ id: "a" }, never);
    for (let i = 0; i < 2; i++) {
      await recovery.cellDied(0, pidOf(machine, 0));
      expect(await sandboxes.get("a")).toMatchObject({ state: "ready", restarts: i + 1 });
    }
    await recovery.cellDied(0, pidOf(machine, 0));
    expect((await sandboxes.get("a")).state).toBe("failed");
    await sandboxes.destroy("a");
    expect(machine.state()).toEqual([]);
  });

  it("ignores the death of an init that was replaced meanwhile", async () => {
    const machine = new FakeMachine();
    const { sandboxes, recovery } = fakeSquashd(machine);
    await sandboxes.create({ id: "a" }, never);
    const pid = pidOf(machine, 0);
    await Promise.all([recovery.cellDied(0, pid), recovery.cellDied(0, pid)]);
    expect((await sandboxes.get("a")).restarts).toBe(1);
  });

  it("rebuilds a sandbox whose init died while it was being created or adopted", async () => {
    const machine = new FakeMachine();
    const first = fakeSquashd(machine);
    machine.afterStep = (operation) => {
      if (operation !== "writeRecord") return;
      machine.afterStep = () => undefined;
      machine.crashCell(0);
    };
    await first.sandboxes.create({ id: "a" }, never);
    await expect.poll(async () => (await first.sandboxes.get("a")).restarts).toBe(1);
    const second = fakeSquashd(machine);
    machine.afterStep = (operation) => {
      if (operation !== "adoptCell") return;
      machine.afterStep = () => undefined;
      setTimeout(() => machine.crashCell(0));
    };
    await second.recovery.run();
    await expect.poll(async () => (await second.sandboxes.get("a")).restarts).toBe(2);
  });

  it("never hands out a pooled cell that died", async () => {
    const machine = new FakeMachine();
    const { sandboxes, recovery, cells } = fakeSquashd(machine, { poolSize: 2 });
    cells.fill();
    await cells.settled();
    await recovery.cellDied(0, 100);
    await cells.settled();
    await sandboxes.create({ id: "a" }, never);
    expect((await sandboxes.get("a")).pid).not.toBe(100);
    expect(cells.ready).toBeGreaterThan(0);
  });
});
