import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { collectFiles } from "./garbage.js";

let home: string;
beforeEach(() => (home = mkdtempSync(join(tmpdir(), "squash-garbage-"))));
afterEach(() => rmSync(home, { recursive: true }));

/** Makes a file that was touched so long ago. */
function file(path: string, ageS = 0): void {
  const target = join(home, path);
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, "x".repeat(5000));
  const time = Date.now() / 1000 - ageS;
  utimesSync(target, time, time);
}

const gone = 4_194_305; // more than any process id
const hex = "a".repeat(12);

describe("collectFiles()", () => {
  it("finds nothing where there is nothing", async () => {
    expect(await collectFiles(home, { dryRun: false })).toEqual({ files: [], bytes: 0 });
  });

  it("says what it would remove, with the bytes, and removes that", async () => {
    const garbage = [
      `cache/job-${gone}-AbCdEf/deep/part`,
      `modules/.100-a.erofs.${gone}-${hex}`,
      `modules/.promoted.erofs.${gone}-${hex}`,
    ];
    for (const path of garbage) file(path);
    file(`snapshots/${"b".repeat(32)}.seal.tmp-${hex}`, 100_000);
    file(`cache/oci/sha256/${"0".repeat(64)}`, 4_000);
    const kept = [
      `cache/job-${process.pid}-AbCdEf/part`,
      `modules/.100-b.erofs.${process.pid}-${hex}`,
      "modules/100-by-hand.erofs",
      "modules/100-by-hand.squashfs",
      "modules/100-gone.manifest.json",
      `snapshots/${"c".repeat(32)}.erofs`,
      `snapshots/${"c".repeat(32)}.seal`,
      `snapshots/${"d".repeat(32)}.seal.tmp-${hex}`,
      `cache/oci/sha256/${"1".repeat(64)}`,
      "cache/verified.json",
      "cache/upper-template/image",
      "sandboxes/box/.meta/sandbox.json",
    ];
    for (const path of kept) file(path);
    const plan = await collectFiles(home, { dryRun: true });
    expect(plan.files).toEqual([
      `cache/job-${gone}-AbCdEf`,
      ...garbage.slice(1),
      `snapshots/${"b".repeat(32)}.seal.tmp-${hex}`,
      `cache/oci/sha256/${"0".repeat(64)}`,
    ]);
    expect(plan.bytes).toBeGreaterThanOrEqual(5 * 5000);
    expect(await collectFiles(home, { dryRun: false })).toEqual(plan);
    expect(await collectFiles(home, { dryRun: true })).toEqual({ files: [], bytes: 0 });
    const left = readdirSync(home, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    expect(left.map((entry) => join(entry.parentPath, entry.name).slice(home.length + 1)).toSorted()).toEqual(
      kept.toSorted(),
    );
  });
});
