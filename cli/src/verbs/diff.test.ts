import { describe, expect, it } from "vitest";

import { runFake } from "../testing/fake-context.js";

const path = "/v1/sandboxes/box/diff";
const entry = { type: "file", old_size: 1, new_size: 2048, changes: ["content"] };
const answer = {
  ok: true,
  from: "base",
  to: "live",
  added: [{ ...entry, path: "/b\u001b[2J\nx", old_size: null, changes: [] }],
  modified: [{ ...entry, path: "/a" }],
  deleted: [{ ...entry, path: "/d", type: "directory", new_size: null, changes: [] }],
  metadata: [{ ...entry, path: "/c", changes: ["mode", "owner"] }],
  totals: { added: 1, modified: 1, deleted: 1, metadata: 3 },
  truncated: true,
};

describe("sq diff", () => {
  it("shows a line for each path, sorted and harmless", async () => {
    const { stdout, requests } = await runFake(["diff", "box"], { routes: { [`GET ${path}`]: answer } });
    expect(stdout).toBe("M /a (1 B to 2 KiB)\nA /b[2J x (2 KiB)\nm /c (mode, owner)\nD /d/\nand 2 more\n");
    expect(requests).toEqual([`GET ${path}`]);
  });

  it("asks for both sides, and prints the API's own JSON", async () => {
    const routes = { [`GET ${path}\\?from=base&to=%40b%2Fone`]: answer };
    const { stdout } = await runFake(["diff", "box", "base", "@b/one", "--json"], { routes });
    expect(JSON.parse(stdout)).toEqual(answer);
  });

  it("shows the unified diff of a file, or why there is none", async () => {
    const diff = "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-old\u001b[2J\n+new\n";
    const file = { ok: true, kind: "modified", entry: { ...entry, path: "/x" }, binary: false, too_large: false, diff };
    const route = `GET ${path}\\?path=%2Fx`;
    const text = await runFake(["diff", "box", "--path", "/x"], { routes: { [route]: file } });
    expect(text.stdout).toBe(diff.replace("\u001b", ""));
    const none = { ...file, binary: true, diff: null };
    const binary = await runFake(["diff", "box", "--path", "/x"], { routes: { [route]: none } });
    expect(binary.stdout).toBe("/x (1 B to 2 KiB): binary files differ\n");
  });

  it("refuses --tar beside --path", async () => {
    expect(await runFake(["diff", "box", "--tar", "x", "--path", "y"])).toMatchObject({ status: 2, requests: [] });
  });
});
