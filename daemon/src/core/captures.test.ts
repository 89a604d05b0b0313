import { describe, expect, it } from "vitest";
import { bounds } from "./validate.js";
import { FakeMachine } from "./testing/fake-machine.js";
import { fakeSquashd, type FakeSquashd } from "./testing/fake-squashd.js";

const never = new AbortController().signal;
const image = "cache/x/captured.erofs";

async function prepared(): Promise<FakeSquashd & { machine: FakeMachine }> {
  const machine = new FakeMachine();
  const squashd = { ...fakeSquashd(machine), machine };
  await squashd.sandboxes.create({ id: "a" }, never);
  await squashd.snapshots.take("a", { label: "one" });
  await squashd.stacks.restore("a", { label: "one" }, never);
  await squashd.snapshots.take("a", { label: "two" });
  return squashd;
}

describe("Captures", () => {
  it("merges what was written by now with the snapshots below it, and keeps nothing of the moment", async () => {
    const { captures, machine, layers } = await prepared();
    const before = machine.state();
    const mounted = layers.mounted;
    expect(await captures.take("a", null, { image, signal: never })).toEqual({ modules: ["000-base"], size: 4096 });
    const roots = machine.captured.get(image) ?? [];
    expect(roots.map(({ kind }) => kind)).toEqual(["layer", "layer"]);
    expect(machine.frozen.size).toBe(0);
    expect(layers.mounted).toBe(mounted);
    machine.captured.delete(image); // the caller's
    expect(machine.state()).toEqual(before);
  });

  it("takes a snapshot as it was, without touching the sandbox", async () => {
    const { captures, machine } = await prepared();
    const from = machine.calls.length;
    await captures.take("a", "one", { image, signal: never });
    expect(machine.captured.get(image)).toHaveLength(1);
    expect(machine.calls.slice(from)).not.toContain("freezeCell");
    await expect(captures.take("a", "none", { image, signal: never })).rejects.toMatchObject({
      code: "snapshot_not_found",
    });
    await expect(captures.take("none", null, { image, signal: never })).rejects.toMatchObject({
      code: "sandbox_not_found",
    });
  });

  it("gives its layers back when the capture fails, or is called off", async () => {
    const { captures, machine } = await prepared();
    const before = machine.state();
    machine.failing.set("capture", 2);
    await expect(captures.take("a", "two", { image, signal: never })).rejects.toMatchObject({ code: "kernel" });
    await expect(captures.take("a", null, { image, signal: AbortSignal.abort() })).rejects.toMatchObject({});
    machine.captured.delete(image); // the caller's
    expect(machine.state()).toEqual(before);
  });
});

describe("Captures of a module", () => {
  const module = { name: "100-m", image: "modules/100-m.erofs", format: "erofs", identity: "1" } as const;

  it("take its image alone and as it is, and give the layer back", async () => {
    const { captures, machine, layers } = await prepared();
    const mounted = layers.mounted;
    const remove = (): Promise<boolean> => Promise.resolve(machine.captured.delete(image));
    await captures.takeModule(module, { image, remove, sizeLimit: 4096 }, never);
    expect(machine.captured.get(image)).toEqual([{ kind: "exact", key: layers.keyOf(module) }]);
    expect(layers.mounted).toBe(mounted);
  });

  it("leave nothing of an image that is too large, or that nobody waits for any more", async () => {
    const { captures, machine, layers } = await prepared();
    const mounted = layers.mounted;
    const remove = (): Promise<boolean> => Promise.resolve(machine.captured.delete(image));
    const small = captures.takeModule(module, { image, remove, sizeLimit: 4095 }, never);
    await expect(small).rejects.toMatchObject({ code: "build_failed", message: /unpacks to more than 0 MiB/ });
    const late = captures.takeModule(module, { image, remove, sizeLimit: 4096 }, AbortSignal.abort());
    await expect(late).rejects.toMatchObject({ code: "cancelled" });
    expect([machine.captured.has(image), layers.mounted]).toEqual([false, mounted]);
  });
});

describe("Captures of what was unpacked", () => {
  const output = (machine: FakeMachine, sizeLimit = 4096) => ({
    image,
    remove: () => Promise.resolve(machine.captured.delete(image)),
    sizeLimit,
  });

  it("take the directory alone, and say the size", async () => {
    const { captures, machine } = await prepared();
    expect(await captures.takeUnpacked("cache/x/work/tree", output(machine), never)).toBe(4096);
    expect(machine.captured.get(image)).toEqual([{ kind: "unpacked", path: "cache/x/work/tree" }]);
  });

  it("leave nothing of an image that is too large, or that nobody waits for any more", async () => {
    const { captures, machine } = await prepared();
    const small = captures.takeUnpacked("tree", output(machine, 4095), never);
    await expect(small).rejects.toMatchObject({ code: "build_failed", details: { errno: "EFBIG" } });
    const late = captures.takeUnpacked("tree", output(machine), AbortSignal.abort());
    await expect(late).rejects.toMatchObject({ code: "cancelled" });
    expect(machine.captured.has(image)).toBe(false);
  });
});

describe("a stack", () => {
  it("has at most as many modules as a new sandbox may have", async () => {
    const machine = new FakeMachine();
    const squashd = fakeSquashd(machine);
    const layers = Array.from({ length: bounds.layers }, (_, at) => `${100 + at}-m`);
    for (const name of [...layers, "900-more"]) machine.modules.add(name);
    await squashd.sandboxes.create({ id: "a", layers }, never);
    await expect(squashd.stacks.activate("a", { module: "900-more" }, never)).rejects.toMatchObject({
      code: "invalid_request",
      message: 'Cannot activate "900-more" in "a": a stack has at most 120 modules; deactivate one first',
    });
    await squashd.stacks.deactivate("a", { module: "100-m" }, never);
    expect((await squashd.stacks.activate("a", { module: "900-more" }, never)).layers).toHaveLength(bounds.layers);
  });
});
