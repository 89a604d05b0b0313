import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { sweepLeftovers } from "./leftovers.js";

const dayMs = 24 * 60 * 60_000;
const hex = "0123456789ab";
let dataDir: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-sweep-"));
  for (const folder of ["cache", "modules"]) mkdirSync(join(dataDir, folder));
});
afterEach(() => rmSync(dataDir, { recursive: true }));

/** Makes a file, or a directory with one in it, that is so old. */
function leave(path: string, ageMs: number): void {
  const full = join(dataDir, path);
  if (path.startsWith("cache/")) {
    mkdirSync(join(full, "root/bin"), { recursive: true });
    writeFileSync(join(full, "root/bin/sh"), "");
    symlinkSync(tmpdir(), join(full, "root/tmp"));
  } else writeFileSync(full, "");
  const time = (Date.now() - ageMs) / 1000;
  utimesSync(full, time, time);
}

it("removes a killed builder's scratch directories and drafts, and what they link to stays", async () => {
  const old = [
    "cache/mkbase-aB3dE6",
    `modules/.000-base.erofs.${hex}`,
    `modules/.000-base.squashfs.${hex}`,
    `modules/000-base.manifest.json.tmp-${hex}`,
  ];
  for (const path of old) leave(path, dayMs + 1_000);
  expect(await sweepLeftovers(dataDir)).toEqual(old.map((path) => join(dataDir, path)));
  expect(readdirSync(dataDir, { recursive: true }).toSorted()).toEqual(["cache", "modules"]);
  expect(existsSync(tmpdir())).toBe(true);
});

it("leaves what is younger than a day, which may be in use", async () => {
  for (const path of ["cache/mkbase-aB3dE6", `modules/.000-base.squashfs.${hex}`]) leave(path, dayMs - 60_000);
  expect(await sweepLeftovers(dataDir)).toEqual([]);
});

it("leaves what builders do not name so", async () => {
  const others = [
    "cache/templates",
    "cache/mkbase-aB3dE6x",
    "modules/000-base.erofs",
    "modules/000-base.manifest.json",
    "modules/.hidden",
    `modules/.000-base.tar.${hex}`,
    `modules/000-base.squashfs.${hex}`,
  ];
  for (const path of others) leave(path, 30 * dayMs);
  expect(await sweepLeftovers(dataDir)).toEqual([]);
  for (const path of others) expect([path, existsSync(join(dataDir, path))]).toEqual([path, true]);
});

it("has nothing to do where nothing was built yet", async () => {
  expect(await sweepLeftovers(join(dataDir, "absent"))).toEqual([]);
});

it("removes at once what a process made that is gone, and at a start what one of its own number did", async () => {
  const gone = spawnSync("true").pid;
  const [dead, own] = [gone, process.pid].map((pid) => [
    `cache/job-${pid}-aB3dE6`,
    `cache/mkbase-${pid}-aB3dE6`,
    `modules/.000-base.squashfs.${pid}-${hex}`,
    `modules/.000-base.upload.${pid}-${hex}`,
  ]);
  for (const path of [...dead!, ...own!]) leave(path, 0);
  expect(await sweepLeftovers(dataDir)).toEqual(dead!.map((path) => join(dataDir, path)));
  expect(await sweepLeftovers(dataDir, { atStart: true })).toEqual(own!.map((path) => join(dataDir, path)));
});
