import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { isSquashError } from "@squash/sdk/errors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkImage } from "./superblock.js";

const home = mkdtempSync(join(tmpdir(), "squash-superblock-"));
const path = join(home, "image");
const images: Record<"squashfs" | "erofs", Buffer> = { squashfs: Buffer.alloc(0), erofs: Buffer.alloc(0) };

beforeAll(() => {
  const root = join(home, "root");
  mkdirSync(root);
  writeFileSync(join(root, "file"), "content");
  const quiet = { stdio: "ignore" } as const;
  execFileSync("mksquashfs", [root, join(home, "squashfs"), "-noappend", "-quiet"], quiet);
  execFileSync("mkfs.erofs", ["-zlz4", join(home, "erofs"), root], quiet);
  for (const format of ["squashfs", "erofs"] as const) images[format] = readFileSync(join(home, format));
});
afterAll(() => rmSync(home, { recursive: true }));

function check(bytes: Buffer): Promise<string> {
  writeFileSync(path, bytes);
  return checkImage(path, "a").then(
    ({ format }) => format,
    (error: unknown) => {
      if (!isSquashError(error)) throw error;
      return `${error.code}: ${error.message}`;
    },
  );
}

/** The image with one figure of its superblock replaced. */
function changed(format: "squashfs" | "erofs", at: number, bytes: number[]): Buffer {
  const copy = Buffer.from(images[format]);
  copy.set(bytes, (format === "erofs" ? 1_024 : 0) + at);
  return copy;
}

describe("checkImage()", () => {
  it("tells the format of what the packers make", async () => {
    expect(await check(images.squashfs)).toBe("squashfs");
    expect(await check(images.erofs)).toBe("erofs");
  });

  it.each([
    ["nothing", () => Buffer.alloc(0), /neither a squashfs nor an erofs image/],
    ["a text", () => Buffer.from("hello ".repeat(1_000)), /neither/],
    ["a squashfs image that is cut off", () => images.squashfs.subarray(0, 100), /it is cut off/],
    ["an erofs image that is cut off", () => images.erofs.subarray(0, 1_200), /it is cut off/],
    ["the head of one", () => images.squashfs.subarray(0, 50), /neither/],
    ["no inodes", () => changed("squashfs", 4, [0, 0, 0, 0]), /0 inodes/],
    ["billions of inodes", () => changed("squashfs", 4, [255, 255, 255, 255]), /4294967295 inodes/],
    ["an odd block size", () => changed("squashfs", 12, [1, 0, 2, 0]), /impossible block size/],
    ["a huge block size", () => changed("squashfs", 22, [31, 0]), /impossible block size/],
    ["an unknown compression", () => changed("squashfs", 20, [9, 0]), /unknown compression/],
    ["version 3", () => changed("squashfs", 28, [3, 0]), /another version/],
    ["an exabyte", () => changed("squashfs", 40, [0, 0, 0, 0, 0, 0, 0, 16]), /it is cut off/],
    ["a table far outside", () => changed("squashfs", 64, [0, 0, 0, 0, 1, 0, 0, 0]), /a table outside/],
    ["two megabytes behind it", () => Buffer.concat([images.squashfs, Buffer.alloc(2_097_152)]), /superblock says/],
    ["erofs blocks of 2 GiB", () => changed("erofs", 12, [31]), /impossible block size/],
    ["erofs with all blocks", () => changed("erofs", 36, [255, 255, 255, 255]), /it is cut off/],
  ] as const)("refuses %s", async (_, make, message) => {
    expect(await check(make())).toMatch(message);
  });

  it("answers or refuses whatever the superblock says", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom("squashfs" as const, "erofs" as const),
        fc.integer({ min: 0, max: 95 }),
        fc.uint8Array({ minLength: 1, maxLength: 8 }),
        async (format, at, bytes) => {
          expect(await check(changed(format, at, [...bytes]))).toMatch(
            /^(squashfs|erofs)$|^module_invalid: Cannot take/,
          );
        },
      ),
      { numRuns: 200 },
    );
  });
});
