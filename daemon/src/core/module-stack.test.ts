import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkStack, type ModuleNeeds } from "./module-stack.js";

describe("checkStack()", () => {
  it("takes modules that say nothing about each other, or what is fulfilled", () => {
    expect(() => checkStack([])).not.toThrow();
    expect(() => checkStack([{ name: "a" }, { name: "b", requires: ["a"], conflicts: ["c"] }])).not.toThrow();
    expect(() => checkStack([{ name: "a", requires: ["a"], conflicts: ["a"] }])).not.toThrow();
  });

  it("refuses two of which either says that it conflicts with the other", () => {
    const [left, right] = [{ name: "left", conflicts: ["right"] }, { name: "right" }];
    for (const modules of [
      [left, right],
      [right, left],
    ]) {
      expect(() => checkStack(modules)).toThrow(
        expect.objectContaining({
          code: "module_conflict",
          message: 'Cannot stack module "left" with "right": "left" conflicts with it; leave one of them out',
          details: { module: "left", conflicts_with: "right" },
        }),
      );
    }
  });

  it("names everything that is missing, and who wants it", () => {
    const modules = [
      { name: "a", requires: ["x", "b"] },
      { name: "b", requires: ["x", "y"] },
    ];
    expect(() => checkStack(modules)).toThrow(
      expect.objectContaining({
        code: "module_requires",
        message: 'Cannot stack these modules: "a" requires "x", "b" requires "y"; add what is missing',
        details: { missing: ["x", "y"] },
      }),
    );
  });

  it("decides as the plain rule does, in any order", () => {
    const names = fc.subarray(["a", "b", "c", "d"]);
    const module = (name: string): fc.Arbitrary<ModuleNeeds> =>
      fc.record({ name: fc.constant(name), requires: names, conflicts: names });
    const stack = names.chain((chosen) => fc.shuffledSubarray(chosen, { minLength: chosen.length }));
    fc.assert(
      fc.property(
        stack.chain((chosen) => fc.tuple(...chosen.map(module))),
        (modules) => {
          const has = (name: string): boolean => modules.some((each) => each.name === name);
          const isGood = modules.every(
            ({ name, requires = [], conflicts = [] }) =>
              requires.every(has) && !conflicts.some((other) => other !== name && has(other)),
          );
          let passed = true;
          try {
            checkStack(modules);
          } catch {
            passed = false;
          }
          expect(passed).toBe(isGood);
        },
      ),
    );
  });
});
