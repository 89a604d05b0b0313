import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { SandboxFiles } from "./sandbox-files.js";

let dataDir: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-drafts-"));
});
afterEach(() => rmSync(dataDir, { recursive: true }));

const store = (): SandboxFiles => new SandboxFiles(dataDir, { makeImage: () => Promise.resolve(), boot: "a" });
const all = (): string[] => readdirSync(dataDir, { recursive: true, encoding: "utf8" }).toSorted();

it("of records, lists and images that a crash has left are swept, and nothing else is", async () => {
  mkdirSync(join(dataDir, "sandboxes/a.tmp/.meta/log"), { recursive: true });
  mkdirSync(join(dataDir, "sandboxes/a.tmp/upper.0"));
  const kept = [".meta/sandbox.json", ".meta/snapshots.json", ".meta/log/0001.json", "upper.0.img", "upper.0/x.tmp"];
  for (const file of kept) writeFileSync(join(dataDir, "sandboxes/a.tmp", file), "");
  const before = all();
  for (const file of [
    ".meta/sandbox.json.tmp",
    ".meta/snapshots.json.tmp-7-0123456789ab",
    ".meta/snapshots.json.tmp-0123456789ab",
    "upper.1.img.tmp",
  ])
    writeFileSync(join(dataDir, "sandboxes/a.tmp", file), "");
  await store().sweepDrafts();
  expect(all()).toEqual(before);
});

it("are none where there are no sandboxes yet", async () => {
  await store().sweepDrafts();
  expect(all()).toEqual([]);
});
