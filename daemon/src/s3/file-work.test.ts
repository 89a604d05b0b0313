import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomNumbers } from "../../../test/support/random-numbers.js";
import { BatchedWriter } from "./batched-writer.js";
import { GrowingDigest } from "./growing-digest.js";
import { PieceBuffers } from "./piece-buffers.js";

const seed = Date.now() % 1_000_000;
const random = randomNumbers(seed);

let folder: string;
let path: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "files-"));
  path = join(folder, "file");
});
afterAll(() => rmSync(folder, { recursive: true }));

function noise(bytes: number): Buffer {
  return Buffer.from(Array.from({ length: bytes }, () => random(256)));
}

describe(`The digest of a file that grows (seed ${seed})`, () => {
  it("is that of its content, in whatever order its pieces come", async () => {
    for (let round = 0; round < 10; round++) {
      const pieces = Array.from({ length: 1 + random(12) }, () => noise(1 + random(9_000)));
      const content = Buffer.concat(pieces);
      const ends = pieces.map((_, index) => pieces.slice(0, index + 1).reduce((sum, { length }) => sum + length, 0));
      const order = pieces
        .map((_, index) => ({ index, key: random(1_000_000) }))
        .toSorted((one, other) => one.key - other.key);
      rmSync(path, { force: true });
      await using file = await open(path, "wx");
      await file.truncate(content.length);
      await using digest = new GrowingDigest(path, ends);
      for (const { index } of order) {
        const piece = pieces[index] ?? Buffer.alloc(0);
        await file.write(piece, 0, piece.length, (ends[index] ?? 0) - piece.length);
        digest.add(index);
      }
      expect(await digest.end()).toBe(createHash("sha256").update(content).digest("hex"));
    }
  });

  it("is that of nothing for an empty file", async () => {
    writeFileSync(path, "");
    await using digest = new GrowingDigest(path, []);
    expect(await digest.end()).toBe(createHash("sha256").digest("hex"));
  });

  it("fails where the file is not there, is a link, or is shorter than was said", async () => {
    const missing = new GrowingDigest(join(folder, "none"), [1]);
    await expect(missing.end()).rejects.toMatchObject({ code: "s3_failed" });
    await missing[Symbol.asyncDispose]();
    writeFileSync(path, "abc");
    await using digest = new GrowingDigest(path, [5]);
    truncateSync(path, 2);
    digest.add(0);
    await expect(digest.end()).rejects.toMatchObject({ code: "s3_failed", message: /shorter/ });
  });
});

describe("Chunks that are written in batches", () => {
  it("are in the file as they came, from the position on, whatever their sizes", async () => {
    const chunks = [1, 70_000, 900_000, 0, 200_000, 1_500_000, 3].map((size) => Buffer.alloc(size, random(256)));
    writeFileSync(path, "before");
    {
      await using file = await open(path, "r+");
      const writer = new BatchedWriter(file, 6);
      for (const chunk of chunks) await writer.write(chunk);
      await writer.flush();
    }
    expect(readFileSync(path).equals(Buffer.concat([Buffer.from("before"), ...chunks]))).toBe(true);
  });

  it("are all written where the disk takes less at a time than it is given", async () => {
    const written = Buffer.alloc(3_000_000);
    const most = 100_001;
    const file = {
      writev(given: readonly Uint8Array[], position: number): Promise<{ bytesWritten: number }> {
        const some = Buffer.concat(given).subarray(0, most);
        some.copy(written, position);
        return Promise.resolve({ bytesWritten: some.length });
      },
    };
    const content = noise(1_234_567);
    const writer = new BatchedWriter(file, 11);
    for (let at = 0; at < content.length; at += 65_536) await writer.write(content.subarray(at, at + 65_536));
    await writer.flush();
    expect(written.subarray(11, 11 + content.length).equals(content)).toBe(true);
  });
});

describe("Buffers of pieces", () => {
  it("are used again, but by nobody else meanwhile, and not after a failure", async () => {
    const buffers = new PieceBuffers();
    const first = await buffers.use(10, (buffer) => Promise.resolve(buffer.buffer));
    await buffers.use(20, async (buffer) => {
      expect(buffer.length).toBe(20);
      expect(buffer.buffer).toBe(first);
      await buffers.use(5, (other) => Promise.resolve(expect(other.buffer).not.toBe(first)));
    });
    const seen = new Set<ArrayBufferLike>();
    const failing = (buffer: Buffer): Promise<never> => {
      seen.add(buffer.buffer);
      return Promise.reject(new Error("broke off"));
    };
    for (let round = 0; round < 2; round++) await expect(buffers.use(1, failing)).rejects.toThrow("broke off");
    await buffers.use(1, (buffer) => Promise.resolve(expect(seen.has(buffer.buffer)).toBe(false)));
  });
});
