import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import fc from "fast-check";
import { pack, type Header } from "tar-stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { checkTar, type TarFacts } from "./tar-check.js";

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "squash-tar-"));
  path = join(folder, "x.tar");
});
afterEach(() => rmSync(folder, { recursive: true }));

type Entry = Partial<Header> & { readonly name: string; readonly content?: string };

function archive(entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack();
  for (const { content = "", ...header } of entries) tar.entry(header, content);
  tar.finalize();
  return buffer(tar);
}

async function check(entries: readonly Entry[], signal?: AbortSignal): Promise<TarFacts> {
  writeFileSync(path, await archive(entries));
  return checkTar(path, signal);
}

const plain: Entry[] = [
  { name: "./", type: "directory" },
  { name: "./bin/", type: "directory" },
  { name: "./bin/sh", content: "x".repeat(2_000), mode: 0o4755 },
  { name: "bin/ash", type: "link", linkname: "./bin/sh" },
  { name: "etc/mtab", type: "symlink", linkname: "../../proc/mounts" },
  { name: "lib", type: "symlink", linkname: "/usr/lib" },
  { name: "run/pipe", type: "fifo" },
  { name: "a..b/...", content: "dots" },
  { name: `${"long/".repeat(60)}name`, content: "y" },
];

describe("checkTar()", () => {
  it("takes what root file systems have, links to elsewhere included", async () => {
    expect(await check(plain)).toMatchObject({ devices: [] });
  });

  it("names the devices", async () => {
    const devices: Entry[] = [
      { name: "./dev/null", type: "character-device", devmajor: 1, devminor: 3 },
      { name: "dev/sda", type: "block-device", devmajor: 8, devminor: 0 },
    ];
    expect(await check([...plain, ...devices])).toMatchObject({ devices: ["dev/null", "dev/sda"] });
  });

  it("finds the latest time, among those that an image can hold", async () => {
    const times = [7_000, 9_000, 8_000, 2 ** 33 * 1000].map((time, index): Entry => ({
      name: `${index}`,
      mtime: new Date(time),
    }));
    expect((await check(times)).latestMtimeS).toBe(9);
    expect((await check(times.slice(3))).latestMtimeS).toBe(0);
  });

  it.each<[Entry, RegExp]>([
    [{ name: "../etc/passwd", content: "x" }, /entry "\.\.\/etc\/passwd" is a path with "\.\."/],
    [{ name: "a/../../b" }, /is a path with "\.\."/],
    [{ name: "a/.." }, /is a path with "\.\."/],
    [{ name: "..", type: "directory" }, /is a path with "\.\."/],
    [{ name: "/etc/passwd" }, /entry "\/etc\/passwd" is an absolute path/],
    [{ name: "//etc" }, /is an absolute path/],
    [{ name: `${"a/".repeat(80)}../x` }, /is a path with "\.\."/],
    [{ name: "a", type: "link", linkname: "../../etc/shadow" }, /entry "\.\.\/\.\.\/etc\/shadow" is a path with/],
    [{ name: "a", type: "link", linkname: "/etc/shadow" }, /entry "\/etc\/shadow" is an absolute path/],
    [{ name: "dev/a b", type: "character-device" }, /name of device "dev\/a b" has unusual characters/],
    [{ name: "dev/*", type: "block-device" }, /unusual characters/],
    [{ name: "-all-root", type: "character-device" }, /unusual characters/],
    [{ name: "dev/\\x", type: "character-device" }, /unusual characters/],
  ])("refuses %j", async (entry, message) => {
    await expect(check([...plain, entry])).rejects.toMatchObject({ code: "build_failed", message });
  });

  it("refuses the names of extended headers as well", async () => {
    for (const pax of [{ path: "../up" }, { path: "/abs" }]) {
      await expect(check([{ name: "harmless", pax }])).rejects.toMatchObject({ code: "build_failed" });
    }
    const link: Entry = { name: "a", type: "link", linkname: "b", pax: { linkpath: "../up" } };
    await expect(check([link])).rejects.toMatchObject({ code: "build_failed" });
  });

  it("refuses more devices than any root file system has", async () => {
    const devices = Array.from({ length: 501 }, (_, index): Entry => ({ name: `dev/d${index}`, type: "block-device" }));
    await expect(check(devices)).rejects.toMatchObject({ message: /over 500 devices/ });
    expect((await check(devices.slice(1))).devices).toHaveLength(500);
  });

  it("refuses what is empty, cut off or no tar file", async () => {
    const whole = await archive(plain);
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.alloc(10_240),
      Buffer.from("<!doctype html><title>Not found</title>".padEnd(2_000)),
      randomBytes(5_000),
      whole.subarray(0, 3 * 512 + 100),
      whole.subarray(0, 700),
    ]) {
      writeFileSync(path, bytes);
      await expect(checkTar(path)).rejects.toMatchObject({ code: "build_failed", message: /Cannot use the tar file/ });
    }
  });

  it("never fails in another way, whatever the bytes are", async () => {
    const whole = await archive(plain);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        async (changes) => {
          const bytes = Buffer.from(whole);
          for (const [at, value] of changes) bytes[at] = value;
          writeFileSync(path, bytes);
          const end = await checkTar(path).then(
            () => "taken",
            (error: { code?: string }) => error.code,
          );
          expect(["taken", "build_failed"]).toContain(end);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("ends when its caller gives up, and says when there is no file", async () => {
    await expect(check(plain, AbortSignal.abort())).rejects.toMatchObject({ code: "cancelled" });
    await expect(checkTar(join(folder, "absent"))).rejects.toMatchObject({ code: "build_failed", message: /ENOENT/ });
  });
});
