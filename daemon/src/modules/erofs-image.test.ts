import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, it } from "vitest";
import { surveyTree, uuidOf } from "./erofs-image.js";

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "squash-tree-"));
});
afterEach(() => rmSync(root, { recursive: true }));

it("surveyTree() finds devices and sockets and the latest time, and follows no link", async () => {
  mkdirSync(join(root, "a/b"), { recursive: true });
  symlinkSync("/", join(root, "a/everything"));
  execFileSync("mkfifo", [join(root, "a/pipe")]);
  writeFileSync(join(root, "a/late"), "");
  const server = createServer().listen(join(root, "a/b/socket"));
  await new Promise((done) => server.once("listening", done));
  for (const path of ["", "a", "a/b", "a/pipe", "a/b/socket"]) utimesSync(join(root, path), 1_000, 1_000);
  utimesSync(join(root, "a/late"), 4_000_000_000, 4_000_000_000);
  expect(await surveyTree(root)).toEqual({ specialFiles: ["a/b/socket"], latestMtimeS: 4_000_000_000 });
  server.close();
});

it("surveyTree() ends when its caller gives up, and where there is nothing", async () => {
  await expect(surveyTree(root, AbortSignal.abort())).rejects.toThrow();
  await expect(surveyTree(join(root, "absent"))).rejects.toThrow(/ENOENT/);
});

it("uuidOf() is a UUID of version 8, the same for the same name only", () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (a, b) => {
      expect(uuidOf(a)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      expect(uuidOf(a) === uuidOf(b)).toBe(a === b);
    }),
  );
});
