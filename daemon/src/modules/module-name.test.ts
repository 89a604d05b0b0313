import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkModuleName, nearNames } from "./module-name.js";

describe("checkModuleName()", () => {
  it("takes what is a module's name, and says what one is where it is none", () => {
    expect(() => checkModuleName("_x.y-9")).not.toThrow();
    for (const name of ["", ".a", "-a", "a/b", "x".repeat(129)])
      expect(() => checkModuleName(name)).toThrow(/Cannot name a module/);
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
