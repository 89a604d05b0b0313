import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomNumbers } from "../../../test/support/random-numbers.js";
import { matchingPieces } from "./piece-match.js";
import { readPieces, type Piece } from "./piece-reader.js";
import { blockBytes, maxPieceBytes, type Cut } from "./pieces.js";

const seed = Date.now() % 1_000_000;
const random = randomNumbers(seed);
const mib = 1_048_576;
const minPieceBytes = 256 * blockBytes;
const { signal } = new AbortController();

let folder: string;
let path: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "pieces-"));
  path = join(folder, "file");
});
afterAll(() => rmSync(folder, { recursive: true }));

function noise(bytes: number): Buffer {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  for (let at = 0; at < words.length; at++) words[at] = (random(65_536) << 16) | random(65_536);
  return Buffer.from(words.buffer, 0, bytes);
}

function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function cut(content: Buffer, how: Cut): { pieces: Piece[]; sha256: string | null; size: number } {
  writeFileSync(path, content);
  const pieces: Piece[] = [];
  const source = readPieces(path, how);
  let step = source.next();
  for (; step.done !== true; step = source.next()) pieces.push(step.value);
  return { pieces, ...step.value };
}

function expectToBe(pieces: readonly Piece[], content: Buffer): void {
  let at = 0;
  for (const { sha256, size } of pieces) {
    expect(digest(content.subarray(at, at + size))).toBe(sha256);
    at += size;
  }
  expect(at).toBe(content.length);
}

describe(`pieces of a file (seed ${seed})`, () => {
  const sizes = [0, 1, 4_095, 4_096, 4_097, mib, maxPieceBytes, maxPieceBytes + 1, 20 * mib + 12_345];

  it.each(sizes)("are, one after another, all of its %i bytes, however it is cut", (size) => {
    const content = noise(size);
    const even = cut(content, "even");
    expectToBe(even.pieces, content);
    expect(even).toMatchObject({ size, sha256: digest(content) });
    expect(even.pieces.slice(0, -1).every((piece) => piece.size === maxPieceBytes)).toBe(true);
    const byContent = cut(content, "content");
    expectToBe(byContent.pieces, content);
    expect(byContent).toMatchObject({ size, sha256: null });
  });

  it("have bounds, and end at blocks", () => {
    const { pieces } = cut(noise(40 * mib + 5), "content");
    for (const { size } of pieces.slice(0, -1)) {
      expect(size).toBeGreaterThanOrEqual(minPieceBytes);
      expect(size).toBeLessThanOrEqual(maxPieceBytes);
      expect(size % blockBytes).toBe(0);
    }
    expect(pieces.length).toBeGreaterThan(6);
  });

  it("have the largest size where the content is the same all over", () => {
    const { pieces } = cut(Buffer.alloc(20 * mib), "content");
    expect(pieces.map(({ size }) => size)).toEqual([maxPieceBytes, maxPieceBytes, 4 * mib]);
  });

  it("are the same ones but for few, wherever blocks are put in, changed or taken out", () => {
    const content = noise(40 * mib);
    const before = new Set(cut(content, "content").pieces.map(({ sha256 }) => sha256));
    const at = (4 + random(32)) * mib + random(256) * blockBytes;
    const variants = {
      "put in": Buffer.concat([content.subarray(0, at), noise((1 + random(9)) * blockBytes), content.subarray(at)]),
      "taken out": Buffer.concat([content.subarray(0, at), content.subarray(at + 3 * blockBytes)]),
      changed: Buffer.concat([content.subarray(0, at), noise(blockBytes), content.subarray(at + blockBytes)]),
    };
    for (const [what, variant] of Object.entries(variants)) {
      const { pieces } = cut(variant, "content");
      expectToBe(pieces, variant);
      const others = pieces.filter(({ sha256 }) => !before.has(sha256));
      expect({ what, few: others.length >= 1 && others.length <= 4 }).toEqual({ what, few: true });
    }
  });

  it("are found where a file has them, and only there", async () => {
    const content = noise(20 * mib + 7);
    const { pieces } = cut(content, "even");
    expect(await matchingPieces(join(folder, "none"), pieces, signal)).toBeNull();
    expect(await matchingPieces(path, pieces, signal)).toEqual(new Set([0, 1, 2]));
    const spoilt = readFileSync(path);
    const byte = maxPieceBytes + random(maxPieceBytes);
    spoilt[byte] = ~(spoilt[byte] ?? 0) & 255;
    writeFileSync(path, spoilt);
    expect(await matchingPieces(path, pieces, signal)).toEqual(new Set([0, 2]));
    truncateSync(path, maxPieceBytes + 100);
    expect(await matchingPieces(path, pieces, signal)).toEqual(new Set([0]));
    await expect(matchingPieces(path, pieces, AbortSignal.abort())).rejects.toThrow();
  });
});
