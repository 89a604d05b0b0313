import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { isStaticProgram } from "./static-program.js";

const [load, interpreter] = [1, 3];
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "squash-elf-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A 64-bit ELF file of nothing but program headers of these types. Source: elf(5). */
function elf(types: readonly number[], count = types.length): Buffer {
  const bytes = Buffer.alloc(64 + types.length * 56);
  bytes.writeUInt32BE(0x7f454c46, 0);
  bytes.set([2, 1, 1], 4);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(count, 56);
  for (const [index, type] of types.entries()) bytes.writeUInt32LE(type, 64 + index * 56);
  return bytes;
}

it.each<[string, Buffer, boolean]>([
  ["a static program", elf([load, load]), true],
  ["one with a loader", elf([load, interpreter]), false],
  ["one whose headers are cut off", elf([load], 100), false],
  ["one without headers", elf([]), false],
  ["one of 32 bits", Buffer.from(elf([load])).fill(1, 4, 5), false],
  ["one of the other byte order", Buffer.from(elf([load])).fill(2, 5, 6), false],
  ["a script", Buffer.from("#!/bin/sh\n".padEnd(100)), false],
  ["a short file", Buffer.from("\u007fELF"), false],
  ["an empty file", Buffer.alloc(0), false],
])("isStaticProgram() of %s", async (_, bytes, isStatic) => {
  const path = join(folder, "program");
  writeFileSync(path, bytes);
  expect(await isStaticProgram(path)).toBe(isStatic);
});

it("isStaticProgram() of this very Node is false", async () => {
  expect(await isStaticProgram(process.execPath)).toBe(false);
});
