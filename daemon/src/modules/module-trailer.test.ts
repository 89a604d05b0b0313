import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { isSquashError } from "@squash/sdk/errors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ModuleAbout } from "./module-about.js";
import { appendTrailer, readTrailer } from "./module-trailer.js";

const home = mkdtempSync(join(tmpdir(), "squash-trailer-"));
const path = join(home, "image");
const formats = ["squashfs", "erofs"] as const;
const footerBytes = 64;

beforeAll(() => {
  const root = join(home, "root");
  mkdirSync(root);
  writeFileSync(join(root, "file"), "content");
  const quiet = { stdio: "ignore" } as const;
  execFileSync("mksquashfs", [root, join(home, "squashfs"), "-noappend", "-quiet"], quiet);
  execFileSync("mkfs.erofs", ["-zlz4", join(home, "erofs"), root], quiet);
});
afterAll(() => rmSync(home, { recursive: true }));

const plain: ModuleAbout = { name: "100-a", builder: "a test" };
const full: ModuleAbout = {
  name: "100-full",
  builder: "mkmod from-oci",
  requires: ["000-base", "050-more"],
  conflicts: ["100-b"],
  defaults: { env: { PATH: "/bin", WORD: "ünïcödé \n" }, workdir: "/srv", user: "1000", entrypoint: ["a"], cmd: [""] },
};

/** The facts of an image that was just made, or the refusal. */
async function told(): Promise<ModuleAbout | string | null> {
  try {
    return await readTrailer(path, "100-a");
  } catch (error) {
    if (isSquashError(error)) return `${error.code}: ${error.message}`;
    throw error;
  }
}

async function make(facts: ModuleAbout = full, format: (typeof formats)[number] = "erofs"): Promise<Buffer> {
  copyFileSync(join(home, format), path);
  await appendTrailer(path, facts);
  return readFileSync(path);
}

/** An image with a trailer around any text, whose digest is right unless another one is said. */
function forge(text: Buffer | string, more: { version?: number; length?: number; digest?: Buffer } = {}): void {
  const bytes = Buffer.from(text);
  const foot = Buffer.alloc(footerBytes);
  foot.write("squash manifest\n");
  foot.writeUInt32LE(more.version ?? 1, 16);
  foot.writeUInt32LE(more.length ?? bytes.length, 20);
  (more.digest ?? createHash("sha256").update(bytes).digest()).copy(foot, 32);
  writeFileSync(path, Buffer.concat([readFileSync(join(home, "erofs")), bytes, foot]));
}

describe.each(formats)("The manifest in a %s image", (format) => {
  it("is what was written, in whole blocks behind the file system, which stays as it was", async () => {
    for (const facts of [plain, full]) {
      const image = await make(facts, format);
      const before = readFileSync(join(home, format));
      expect(image.subarray(0, before.length).equals(before)).toBe(true);
      expect([image.length - before.length, image.length % 4_096]).toEqual([4_096, 0]);
      expect(await told()).toEqual(facts);
    }
  });

  it("has the same bytes for the same facts, whatever says nothing", async () => {
    const image = await make(plain, format);
    expect(await make({ conflicts: [], requires: [], builder: "a test", name: "100-a" }, format)).toEqual(image);
  });

  it("does not disturb the tools that read images", async () => {
    await make(full, format);
    if (format === "erofs") execFileSync("fsck.erofs", [path], { stdio: "ignore" });
    else expect(execFileSync("unsquashfs", ["-cat", path, "file"], { encoding: "utf8" })).toBe("content");
  });

  it("is absent where nobody wrote one", async () => {
    copyFileSync(join(home, format), path);
    expect(await told()).toBeNull();
    writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.alloc(8_192)]));
    expect(await told()).toBeNull();
  });
});

describe("The manifest in an image", () => {
  it("is none where the end of the file system only looks like one", async () => {
    // what a file in the last block of an image may hold
    const image = await make();
    const blocks = statSync(path).size / 4_096;
    image.writeUInt32LE(blocks, 1_024 + 36);
    writeFileSync(path, image);
    expect(await told()).toBeNull();
    // the file system takes the text, but not the end of it
    image.writeUInt32LE(blocks - 1, 1_024 + 36);
    forgeWithin(image);
    expect(await told()).toMatch(/^module_invalid: .*impossible length/);

    function forgeWithin(bytes: Buffer): void {
      bytes.writeUInt32LE(5_000, bytes.length - footerBytes + 20);
      writeFileSync(path, bytes);
    }
  });

  it("is none of what is no image", async () => {
    writeFileSync(path, "no image");
    expect(await told()).toBeNull();
  });

  it.each<[string, RegExp, () => void]>([
    [
      "of another version",
      /is of version 2, this squashd reads 1; the first \d+ bytes/,
      () => forge("{}", { version: 2 }),
    ],
    ["with an absurd length", /impossible length, 4294967295/, () => forge("{}", { length: 0xffff_ffff })],
    ["longer than what there is", /impossible length, 3/, () => forge("{}", { length: 3 })],
    ["larger than any may be", /impossible length, 65537/, () => forge(" ".repeat(65_537))],
    ["with another digest", /its sha-256 is another one/, () => forge("{}", { digest: Buffer.alloc(32) })],
    ["that is empty", /is not JSON/, () => forge("")],
    ["that is no text", /is not JSON/, () => forge(Buffer.from([0x22, 0xff, 0x22]))],
    ["that nests without end", /is not an object/, () => forge("[".repeat(32_768) + "]".repeat(32_768))],
    ["that is a list", /is not an object/, () => forge("[]")],
    ["that is nothing", /is not an object/, () => forge("null")],
    ["without a name", /of which module/, () => forge('{"builder":"x"}')],
    ["with a name that is none", /of which module/, () => forge('{"name":"../a","builder":"x"}')],
    ["without a builder", /who made it/, () => forge('{"name":"a","builder":7}')],
    ["with a builder for terminals", /who made it/, () => forge('{"name":"a","builder":"\\u001b[2J"}')],
    ["with a long builder", /who made it/, () => forge(JSON.stringify({ name: "a", builder: "x".repeat(513) }))],
    ["with a field of files", /unknown/, () => forge('{"name":"a","builder":"x","files":{}}')],
    ["with a prototype", /unknown/, () => forge('{"name":"a","builder":"x","__proto__":{"requires":["b"]}}')],
    ["that requires a text", /no module's name/, () => forge('{"name":"a","builder":"x","requires":"b"}')],
    ["that requires numbers", /no module's name/, () => forge('{"name":"a","builder":"x","requires":[1]}')],
    ["that conflicts with a path", /no module's name/, () => forge('{"name":"a","builder":"x","conflicts":["../b"]}')],
    [
      "that requires too much",
      /no module's name/,
      () => forge(JSON.stringify({ name: "a", builder: "x", requires: Array<string>(129).fill("b") })),
    ],
    ["with defaults of null", /defaults/, () => forge('{"name":"a","builder":"x","defaults":null}')],
    ["with half of the defaults", /defaults/, () => forge('{"name":"a","builder":"x","defaults":{"env":{}}}')],
    [
      "with a directory that climbs",
      /defaults/,
      () =>
        forge(
          '{"name":"a","builder":"x","defaults":{"env":{},"workdir":"/a/../b","user":"","entrypoint":[],"cmd":[]}}',
        ),
    ],
  ])("%s is refused", async (_, message, write) => {
    write();
    const answer = await told();
    expect(answer).toMatch(/^module_invalid: Cannot take module "100-a": the manifest in its image/);
    expect(answer).toMatch(message);
  });

  it("never says anything else than what was written, whichever bits are changed or bytes cut off", async () => {
    const image = await make();
    const end = statSync(join(home, "erofs")).size;
    const change = fc.record({
      at: fc.integer({ min: end, max: image.length - 1 }),
      bit: fc.integer({ min: 0, max: 7 }),
    });
    await fc.assert(
      fc.asyncProperty(change, fc.integer({ min: end, max: image.length }), async ({ at, bit }, kept) => {
        const changed = Buffer.from(image);
        changed[at] = (changed[at] ?? 0) ^ (1 << bit);
        for (const bytes of [changed, image.subarray(0, kept)]) {
          writeFileSync(path, bytes);
          const answer = await told();
          if (answer === null || (typeof answer === "string" && answer.startsWith("module_invalid"))) continue;
          expect(answer).toEqual(full);
        }
      }),
      { numRuns: 400 },
    );
    // the digest covers every bit of the text
    const text = image.indexOf(Buffer.from('{"name"'));
    for (let at = text; at < image.length - footerBytes; at++) {
      const changed = Buffer.from(image);
      changed[at] = (changed[at] ?? 0) ^ 1;
      writeFileSync(path, changed);
      expect(await told()).toMatch(/^module_invalid/);
    }
  });

  it("that nobody would take is not written", async () => {
    const many = { ...plain, requires: Array.from({ length: 129 }, (_, index) => `a${index}`) };
    await expect(make(many)).rejects.toMatchObject({ code: "build_failed", message: /no module's name/ });
    const cmd = ["x".repeat(70_000)];
    const large = { ...plain, defaults: { env: {}, workdir: "", user: "", entrypoint: [], cmd } };
    await expect(make(large)).rejects.toMatchObject({ code: "build_failed", message: /at most 65536/ });
    expect(readFileSync(path)).toEqual(readFileSync(join(home, "erofs")));
  });
});
