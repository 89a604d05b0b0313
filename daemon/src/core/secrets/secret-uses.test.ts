import { describe, expect, it } from "vitest";
import { auditPath, SecretUses } from "./secret-uses.js";

describe("SecretUses", () => {
  it("counts uses and refusals, and knows the last use", () => {
    const uses = new SecretUses([["A", { uses: 4, refusals: 1, lastUsed: null }]]);
    uses.count({ secret: "A", allowed: true, time: "t1" });
    uses.count({ secret: "A", allowed: false, time: "t2" });
    uses.count({ secret: "B", allowed: false, time: "t3" });
    expect(uses.of("A")).toEqual({ uses: 5, refusals: 2, lastUsed: "t1" });
    expect(uses.of("B")).toEqual({ uses: 0, refusals: 1, lastUsed: null });
    uses.keepOnly(new Set(["B"]));
    expect(uses.all()).toEqual([["B", { uses: 0, refusals: 1, lastUsed: null }]]);
    expect(uses.of("A").uses).toBe(0);
  });
});

describe("auditPath()", () => {
  const key = "placeholder-1";
  it.each([
    ["/v1/x", "/v1/x"],
    [`/v1/${key}/x`, `/v1/${key}/x`],
    ["/v1?", "/v1"],
    ["/v1?user=bob&key=placeholder-1&flag", "/v1?user=…&key=placeholder-1&flag"],
    ["/v1?key=a%20placeholder-1b", "/v1?key=placeholder-1"],
    ["/v1?something-private", "/v1?…"],
    [`/${"x".repeat(2_000)}`, `/${"x".repeat(1_023)}…`],
  ])("of %s keeps %s", (path, kept) => {
    expect(auditPath(path, [key])).toBe(kept);
  });
});
