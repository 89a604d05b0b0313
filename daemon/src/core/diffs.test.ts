import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { nameOfSide, parseSide } from "./diff-sides.js";
import { FakeMachine } from "./testing/fake-machine.js";
import { fakeSquashd } from "./testing/fake-squashd.js";

const everything = { only: Buffer.alloc(0), contents: "none", contentLimit: 0, outputLimit: 1000 } as const;
const never = new AbortController().signal;

describe("a side of a comparison", () => {
  it("is named so that it is found again", () => {
    const name = fc.stringMatching(/^(?:base|live|[a-z0-9]{1,5})$/);
    fc.assert(
      fc.property(name, name, fc.constantFrom("base", "live", "snapshot"), (sandbox, label, kind) => {
        const side = kind === "snapshot" ? ({ kind, sandbox, label } as const) : ({ kind, sandbox } as const);
        expect(parseSide(nameOfSide(side, sandbox), sandbox)).toEqual(side);
        if (kind !== "base") expect(parseSide(nameOfSide(side, "other-1"), "other-1")).toEqual(side);
      }),
    );
  });

  it.each(["", "@", "@a/", "@/a", "a/b", "@a/b/c", "..", "@../x", "a b"])("refuses %j", (text) => {
    expect(() => parseSide(text, "a")).toThrow("Cannot compare");
  });
});

describe("a comparison", () => {
  it("leaves nothing, whatever fails in it", async () => {
    const machine = new FakeMachine();
    const squashd = fakeSquashd(machine);
    await squashd.sandboxes.create({ id: "a" }, never);
    await squashd.snapshots.take("a", { label: "one" });
    const before = machine.state();
    const wish = { ...everything, from: "base", to: "live" };
    const difference = await squashd.diffs.compare("a", wish, never);
    expect(difference).toMatchObject({ from: "base", to: "live" });
    for (const step of ["capture", "compare", "takeOutput", "mountLayer"]) {
      machine.failing.set(step, 1);
      await expect(squashd.diffs.compare("a", wish, never)).rejects.toMatchObject({ code: /^(diff|snapshot)_failed$/ });
      machine.failing.clear();
      expect(machine.state()).toEqual(before);
    }
  });

  it("ends when nobody waits for it", async () => {
    const machine = new FakeMachine();
    const squashd = fakeSquashd(machine);
    await squashd.sandboxes.create({ id: "a" }, never);
    const before = machine.state();
    const gone = new AbortController();
    machine.compare = async (output) => {
      machine.captured.set(output, []);
      gone.abort();
      while (machine.captured.has(output)) await new Promise((resolve) => setTimeout(resolve, 1));
      throw new Error("its output has no name any more");
    };
    await expect(squashd.diffs.compare("a", everything, gone.signal)).rejects.toMatchObject({ code: "diff_failed" });
    expect(machine.state()).toEqual(before);
  });
});
