import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RemovedModules } from "./removed-modules.js";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "removed-"));
  path = join(folder, "removed.json");
});
afterEach(() => rmSync(folder, { recursive: true }));

describe("modules that were removed here", () => {
  it("are known by name and content, also by the next squashd, until they are wanted again", async () => {
    const removed = await RemovedModules.open(path);
    expect(removed.has("a", "1")).toBe(false);
    await removed.add("a", "1");
    await removed.add("__proto__", "2");
    const next = await RemovedModules.open(path);
    expect([next.has("a", "1"), next.has("a", "2"), next.has("b", "1")]).toEqual([true, false, false]);
    expect(next.has("__proto__", "2")).toBe(true);
    await next.forget("a");
    await next.forget("none");
    expect((await RemovedModules.open(path)).has("a", "1")).toBe(false);
  });

  it("are none where the file is damaged", async () => {
    for (const text of [
      "",
      "{",
      "null",
      "[]",
      '{"version":1}',
      '{"version":1,"modules":{"a":1}}',
      '{"version":2,"modules":{"a":"1"}}',
    ]) {
      writeFileSync(path, text);
      expect((await RemovedModules.open(path)).has("a", "1")).toBe(false);
    }
  });
});
