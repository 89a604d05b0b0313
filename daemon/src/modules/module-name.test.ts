import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkModuleName, isModuleName, nearNames } from "./module-name.js";

describe("isModuleName()", () => {
  it.each(["a", "000-base-alpine", "_x", "A.b-c_9", "1..2", "x".repeat(128)])("takes %j", (name) => {
    expect(isModuleName(name)).toBe(true);
  });

  it.each(["", ".", "..", ".a", "-a", "a/b", "../a", "a b", "a\n", "a\0", "ä", "x".repeat(129)])(
    "refuses %j",
    (name) => {
      expect(isModuleName(name)).toBe(false);
      expect(() => checkModuleName(name)).toThrow(/Cannot name a module/);
    },
  );

  it("takes only names that are one plain file name", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), (name) => {
        if (isModuleName(name)) expect(name).toMatch(/^(?![.-])[\w.-]{1,128}$/);
      }),
    );
  });

  it("shows no more than the start of what it refuses", () => {
    expect(() => checkModuleName("/".repeat(10_000))).toThrow(/^.{0,400}$/);
  });
});

describe("nearNames()", () => {
  const names = ["000-base-alpine", "000-base-debian", "100-python", "200-node", "squashtools"];

  it.each([
    ["000-base-alpin", ["000-base-alpine", "000-base-debian"]],
    ["python", ["100-python"]],
    ["NODE", ["200-node"]],
    ["100-pyhton", ["100-python"]],
    ["zzzzzzzz", []],
    ["", []],
  ])("of %j are %j", (wanted, near) => {
    expect(nearNames(wanted, names)).toEqual(near);
  });

  it("are at most three, of those that there are, with the name itself first", () => {
    const name = fc.stringMatching(/^[a-z0-9_][a-z0-9._-]{0,20}$/);
    fc.assert(
      fc.property(fc.uniqueArray(name, { minLength: 1, maxLength: 20 }), fc.nat(), (all, pick) => {
        const wanted = all[pick % all.length]!;
        const near = nearNames(wanted, all);
        expect(near.length).toBeLessThanOrEqual(3);
        expect(all).toEqual(expect.arrayContaining(near));
        expect(near).toContain(wanted);
      }),
    );
  });
});
