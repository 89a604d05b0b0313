import { SquashError } from "@squash/sdk/errors";
import { describe, expect, it } from "vitest";
import { Layers } from "./layers.js";
import type { ModuleImage } from "./ports.js";
import { FakeMachine } from "./testing/fake-machine.js";

const image: ModuleImage = { name: "000-base", image: "modules/000-base.erofs", format: "erofs", identity: "1-2-3" };
const key = "000-base@1-2-3.erofs";

function callsOf(machine: FakeMachine, operation: string): number {
  return machine.calls.filter((call) => call === operation).length;
}

describe("a layer that nobody uses", () => {
  it("stays mounted for a while, and is taken again without a mount", async () => {
    const machine = new FakeMachine();
    const layers = new Layers(machine, { lingerMs: 60_000 });
    for (let round = 0; round < 3; round++) await layers.release(await layers.acquire([image]));
    expect(callsOf(machine, "mountLayer")).toBe(1);
    expect(callsOf(machine, "unmountLayer")).toBe(0);
    expect(layers.mounted).toBe(1);
  });

  it("is unmounted at once where nobody will use it any more, but not while somebody does", async () => {
    const machine = new FakeMachine();
    const layers = new Layers(machine, { lingerMs: 60_000 });
    const keys = await layers.acquire([image]);
    await layers.drop(key);
    expect(callsOf(machine, "unmountLayer")).toBe(0);
    await layers.release(keys);
    machine.failing.set("unmountLayer", 1);
    await layers.drop(key);
    expect(layers.mounted).toBe(1);
    await layers.drop(key);
    expect(layers.mounted).toBe(0);
    expect(await machine.mountedLayers()).toEqual([]);
    await layers.drop(key);
    expect(callsOf(machine, "unmountLayer")).toBe(2);
  });

  it("is unmounted when that is over, but not while it is used again", async () => {
    const machine = new FakeMachine();
    const layers = new Layers(machine, { lingerMs: 20 });
    await layers.release(await layers.acquire([image]));
    const keys = await layers.acquire([image]);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(callsOf(machine, "unmountLayer")).toBe(0);
    await layers.release(keys);
    await expect.poll(() => layers.mounted).toBe(0);
    expect(await machine.mountedLayers()).toEqual([]);
    await layers.acquire([image]);
    expect(callsOf(machine, "mountLayer")).toBe(2);
  });

  it("is tried again when the unmount fails", async () => {
    const machine = new FakeMachine();
    const layers = new Layers(machine, { lingerMs: 5 });
    machine.failing.set("unmountLayer", 2);
    await layers.release(await layers.acquire([image]));
    await expect.poll(() => callsOf(machine, "unmountLayer")).toBe(3);
    await expect.poll(() => layers.mounted).toBe(0);
    expect(await machine.mountedLayers()).toEqual([]);
  });

  it("is mounted anew where an unmount failed, as nobody knows how far it came", async () => {
    const machine = new FakeMachine();
    const layers = new Layers(machine, { lingerMs: 100 });
    machine.failing.set("unmountLayer", 1);
    await layers.release(await layers.acquire([image]));
    await expect.poll(() => callsOf(machine, "unmountLayer")).toBe(1);
    await layers.acquire([image]);
    expect([callsOf(machine, "unmountLayer"), callsOf(machine, "mountLayer")]).toEqual([2, 2]);
    expect(await machine.mountedLayers()).toEqual([key]);
  });

  it("is mounted anew where the answer to a mount was lost, as nobody knows how far it came", async () => {
    const machine = new FakeMachine();
    const layers = new Layers(machine, { lingerMs: 60_000 });
    const mount = machine.mountLayer.bind(machine);
    const mounted = new Set<string>();
    machine.mountLayer = async (...of) => {
      if (mounted.has(of[0]) && (await machine.mountedLayers()).includes(of[0])) throw new Error("EEXIST");
      await mount(...of);
      if (mounted.size > 0) return;
      mounted.add(of[0]);
      throw new SquashError("kernel", "Cannot do layerMount: sq-host is gone");
    };
    await expect(layers.acquire([image])).rejects.toThrow("sq-host is gone");
    expect(await layers.acquire([image])).toEqual([key]);
    expect(await machine.mountedLayers()).toEqual([key]);
  });

  it("goes at once when everything is swept", async () => {
    const machine = new FakeMachine();
    const layers = new Layers(machine, { lingerMs: 60_000 });
    await layers.release(await layers.acquire([image]));
    expect(await layers.sweep()).toEqual([key]);
    expect(layers.mounted).toBe(0);
    expect(await machine.mountedLayers()).toEqual([]);
  });

  it("is mounted once however takes and releases are mixed, and never taken away from a user", async () => {
    const machine = new FakeMachine();
    const layers = new Layers(machine, { lingerMs: 1 });
    const users = Array.from({ length: 50 }, async (_, user) => {
      for (let round = 0; round < 10; round++) {
        const keys = await layers.acquire([image]);
        expect(await machine.mountedLayers()).toEqual([key]);
        await new Promise((resolve) => setTimeout(resolve, (user + round) % 4));
        await layers.release(keys);
      }
    });
    await Promise.all(users);
    await expect.poll(() => layers.mounted).toBe(0);
    expect(await machine.mountedLayers()).toEqual([]);
  });
});
