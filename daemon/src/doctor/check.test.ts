import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { check, readOptional } from "./check.js";

const folder = mkdtempSync(join(tmpdir(), "check-test-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("check()", () => {
  it("shows the advice only where something is lacking", async () => {
    const found = { found: "here", advice: "get one" };
    expect(await check("thing", true, () => ({ ok: true, ...found }))).toEqual({
      name: "thing",
      ok: true,
      required: true,
      detail: "here",
    });
    expect((await check("thing", false, () => ({ ok: false, ...found }))).detail).toBe("here; get one");
    expect((await check("thing", false, () => ({ ok: false, found: "gone" }))).detail).toBe("gone");
  });

  it("takes a look that fails for a lack, not for the end of all checks", async () => {
    const checks = await Promise.all([
      check("a", true, () => Promise.reject(new Error("no such device"))),
      check("b", true, () => {
        throw new Error("no such file");
      }),
    ]);
    expect(checks.map(({ ok, detail }) => ({ ok, detail }))).toEqual([
      { ok: false, detail: "cannot be checked: no such device" },
      { ok: false, detail: "cannot be checked: no such file" },
    ]);
  });
});

describe("readOptional()", () => {
  it("gives the content without blanks around, null for what is not there, and any other failure as it is", async () => {
    writeFileSync(join(folder, "file"), "  12\n");
    expect(await readOptional(join(folder, "file"))).toBe("12");
    expect(await readOptional(join(folder, "none"))).toBeNull();
    await expect(readOptional(folder)).rejects.toMatchObject({ code: "EISDIR" });
  });
});
