import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isModuleName } from "./validate.js";

describe("isModuleName()", () => {
  it.each(["a", "000-base-alpine", "_x", "A.b-c_9", "1..2", "x".repeat(128)])("takes %j", (name) => {
    expect(isModuleName(name)).toBe(true);
  });

  it.each(["", ".", "..", ".a", "-a", "a/b", "../a", "a b", "a\n", "a\0", "ä", "x".repeat(129), 1, null, ["a"]])(
    "refuses %j",
    (name) => {
      expect(isModuleName(name)).toBe(false);
    },
  );

  it("takes only names that are one plain file name", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), (name) => {
        if (isModuleName(name)) expect(name).toMatch(/^(?![.-])[\w.-]{1,128}$/);
      }),
    );
  });
});
