import { mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { collectFiles } from "./garbage.js";
import { sweepLeftovers } from "./leftovers.js";
import type { ModuleManifest } from "./manifest.js";
import { finishPlacings, placeModule } from "./placing.js";

const hex = "0123456789ab";
const name = "200-x";
let dataDir: string;
let directory: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-placing-"));
  directory = join(dataDir, "modules");
  mkdirSync(directory);
});
afterEach(() => rmSync(dataDir, { recursive: true }));

const write = (file: string, text: string): void => writeFileSync(join(directory, file), text);
const read = (file: string): string => readFileSync(join(directory, file), "utf8");
const sha256 = "0".repeat(64);
const manifest = (builder: string, files: ModuleManifest["files"]): ModuleManifest => ({
  schema: 1,
  name,
  built_at: "2026-01-01T00:00:00Z",
  builder,
  files,
});
const squashfs = { draft: `.${name}.squashfs.7-${hex}`, file: `${name}.squashfs` };
const erofs = { draft: `.${name}.erofs.7-${hex}`, file: `${name}.erofs` };
const both = manifest("new", {
  [squashfs.file]: { size: 12, sha256 },
  [erofs.file]: { size: 9, sha256 },
});

/** An old module with an erofs image only, drafts of a new one, and what says that these are to be put in place. */
function begun(): void {
  write(erofs.file, "old");
  write(`${name}.manifest.json`, JSON.stringify(manifest("old", { [erofs.file]: { size: 3, sha256 } })));
  write(squashfs.draft, "new squashfs");
  write(erofs.draft, "new erofs");
  write(`.${name}.placing.json`, JSON.stringify({ manifest: both, drafts: [squashfs, erofs] }));
}

function expectNew(): void {
  expect(readdirSync(directory).toSorted()).toEqual([erofs.file, `${name}.manifest.json`, squashfs.file]);
  expect([read(squashfs.file), read(erofs.file)]).toEqual(["new squashfs", "new erofs"]);
  expect(JSON.parse(read(`${name}.manifest.json`))).toEqual(both);
}

it("replaces a module's images and manifest, and removes the image of another format", async () => {
  write(squashfs.file, "old");
  write(erofs.draft, "new erofs");
  const only = manifest("new", { [erofs.file]: { size: 9, sha256 } });
  await placeModule(directory, only, [{ draft: join(directory, erofs.draft), file: erofs.file }]);
  expect(readdirSync(directory).toSorted()).toEqual([erofs.file, `${name}.manifest.json`]);
  expect(JSON.parse(read(`${name}.manifest.json`))).toEqual(only);
});

const steps: readonly (readonly [string, () => void])[] = [
  ["before anything was moved", () => undefined],
  ["after one image", () => renameSync(join(directory, squashfs.draft), join(directory, squashfs.file))],
  ["after both images", () => renameSync(join(directory, erofs.draft), join(directory, erofs.file))],
  ["after the manifest", () => write(`${name}.manifest.json`, JSON.stringify(both))],
];

it.each(steps.map(([when], at) => [when, at] as const))(
  "that was cut off %s is brought to its end by the next sweep",
  async (_, at) => {
    begun();
    for (const [, step] of steps.slice(0, at + 1)) step();
    await sweepLeftovers(dataDir);
    expectNew();
  },
);

it("that was cut off is brought to its end by a collection of garbage, too", async () => {
  begun();
  await collectFiles(dataDir, { dryRun: false });
  expectNew();
});

it("that was cut off is done only once, however many find it", async () => {
  begun();
  await Promise.all([finishPlacings(directory), finishPlacings(directory), sweepLeftovers(dataDir)]);
  expectNew();
});

it("is forgotten where the images are not those that were meant any more", async () => {
  begun();
  rmSync(join(directory, squashfs.draft));
  write(squashfs.file, "another module's");
  const before = read(`${name}.manifest.json`);
  await finishPlacings(directory);
  expect(read(`${name}.manifest.json`)).toBe(before);
  expect(read(erofs.file)).toBe("old");
  expect(readdirSync(directory)).not.toContain(`.${name}.placing.json`);
});

it.each(["", "{}", '{"manifest":{},"drafts":[]}', '{"drafts":[{"draft":"../../x","file":"/etc/passwd"}]}'])(
  "is forgotten where it cannot be read: %s",
  async (text) => {
    write(`.${name}.placing.json`, text);
    await finishPlacings(directory);
    expect(readdirSync(directory)).toEqual([]);
  },
);
