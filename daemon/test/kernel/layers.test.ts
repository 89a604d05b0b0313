import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { Layers } from "../../src/core/layers.js";
import { lacks } from "../../../test/support/needs.js";
import { mountsOf, useKernel, type Format, type MountLine } from "./test-kernel.js";

const formats: readonly Format[] = ["squashfs", "erofs"];
const names = ["a b", "ü", "a,b", "a:b", "a\\b", 'a"b', "a\nb", "a'b", "$(x)", "-a", "a=b", "a".repeat(200)];

describe.skipIf(lacks("root"))("a layer", () => {
  const machine = useKernel();
  const images: Partial<Record<Format, string>> = {};
  const large: Partial<Record<Format, string>> = {};

  beforeAll(() => {
    for (const format of formats) {
      images[format] = machine.image("100-extra", format);
      large[format] = machine.image("000-base-test", format);
    }
  });
  afterEach(async () => {
    for (const key of await machine.kernel.mountedLayers()) await machine.kernel.unmountLayer(key);
  });

  const imageOf = (format: Format): string => images[format] ?? "";

  async function mountOf(key: string): Promise<MountLine | undefined> {
    return mountsOf(await machine.hostPid()).find(({ path }) => path === `/l/${key}`);
  }

  /** Loop devices that hold one of this file's images. */
  function loops(): string[] {
    return readdirSync("/sys/block").filter((name) => {
      const file = `/sys/block/${name}/loop/backing_file`;
      try {
        return readFileSync(file, "utf8").includes(machine.mark);
      } catch {
        return false; // not in use
      }
    });
  }

  /** What it does with the file that is found at an image's place. */
  async function expectRefused(format: Format, put: (path: string) => void): Promise<unknown> {
    const image = machine.imageName("bad", format);
    const path = join(machine.dataDir, image);
    put(path);
    try {
      const error: unknown = await machine.kernel.mountLayer("bad", image, format).catch((cause: unknown) => cause);
      expect(error).toMatchObject({ code: "kernel", details: { errno: expect.stringMatching(/^E[A-Z]+$/) as string } });
      expect(await machine.kernel.mountedLayers()).toEqual([]);
      expect(await mountOf("bad")).toBeUndefined();
      await expect.poll(loops).toEqual([]);
      return error;
    } finally {
      rmSync(path, { recursive: true, force: true });
    }
  }

  describe.each(formats)("of an image of format %s", (format) => {
    it("is mounted where only sq-host sees it, read-only, without devices and setuid", async () => {
      await machine.kernel.mountLayer("one", imageOf(format), format);
      const mount = await mountOf("one");
      expect(mount?.type).toBe(format);
      expect(mount?.options).toEqual(expect.arrayContaining(["ro", "nosuid", "nodev"]));
      expect(mountsOf("self").filter(({ path }) => path.includes("/l/"))).toEqual([]);
      const file = `/proc/${await machine.hostPid()}/root/l/one/opt/extra/file`;
      expect(readFileSync(file, "utf8")).toBe("from the extra layer\n");
      expect(() => writeFileSync(file, "x")).toThrow(/EROFS/);
      const devices = loops();
      // erofs needs a loop device only where the kernel cannot mount a file
      expect(devices).toHaveLength(mount?.source.startsWith("/dev/loop") === true ? 1 : 0);
      if (format === "squashfs") expect(devices).toEqual([basename(mount?.source ?? "")]);
      for (const device of devices) {
        expect(readFileSync(`/sys/block/${device}/loop/autoclear`, "utf8").trim()).toBe("1");
        expect(readFileSync(`/sys/block/${device}/ro`, "utf8").trim()).toBe("1");
      }
      await machine.kernel.unmountLayer("one");
      await expect.poll(loops).toEqual([]);
    });

    it("is mounted once, however many use it, and goes with the last", async () => {
      const layers = new Layers(machine.kernel, { lingerMs: 0 });
      const image = { name: "extra", image: imageOf(format), format, identity: "1" };
      const taken = await Promise.all(Array.from({ length: 10 }, () => layers.acquire([image])));
      const keys = new Set(taken.flat());
      expect(keys.size).toBe(1);
      expect(await machine.kernel.mountedLayers()).toEqual([...keys]);
      const before = mountsOf(await machine.hostPid()).filter(({ path }) => path.startsWith("/l/"));
      expect(before).toHaveLength(1);
      for (const some of taken.slice(1)) await layers.release(some);
      expect(await machine.kernel.mountedLayers()).toEqual([...keys]);
      await layers.release(taken[0] ?? []);
      expect(await machine.kernel.mountedLayers()).toEqual([]);
    });

    it("stays when its file is removed or replaced", async () => {
      const other = machine.imageName("moved", format);
      await machine.kernel.mountLayer("one", imageOf(format), format);
      renameSync(join(machine.dataDir, imageOf(format)), join(machine.dataDir, other));
      writeFileSync(join(machine.dataDir, imageOf(format)), "another file");
      const root = `/proc/${await machine.hostPid()}/root/l/one`;
      expect(statSync(join(root, "opt/extra/bin/extra-tool")).size).toBeGreaterThan(0);
      renameSync(join(machine.dataDir, other), join(machine.dataDir, imageOf(format)));
    });

    it.each<[string, (path: string, whole: Buffer) => void]>([
      ["empty", (path) => writeFileSync(path, "")],
      ["cut off in its first block", (path, whole) => writeFileSync(path, whole.subarray(0, 1_100))],
      ["cut off after some bytes", (path, whole) => writeFileSync(path, whole.subarray(0, 40))],
      ["made of chance", (path) => writeFileSync(path, randomBytes(65_536))],
      ["made of zeroes", (path) => writeFileSync(path, Buffer.alloc(65_536))],
      // both formats have their magic number at one of these places
      ["damaged at its beginning", (path, whole) => writeFileSync(path, Buffer.from(whole).fill(0x55, 0, 1_200))],
      ["a text", (path) => writeFileSync(path, "<!doctype html>".repeat(1_000))],
      ["a directory", (path) => mkdirSync(path)],
      ["a pipe", (path) => execFileSync("mkfifo", [path])],
      ["a device", (path) => execFileSync("mknod", [path, "c", "1", "5"])],
      ["missing", () => undefined],
    ])("is refused when that is %s, and leaves no loop device", async (_, put) => {
      await expectRefused(format, (path) => put(path, readFileSync(join(machine.dataDir, large[format] ?? ""))));
    });

    it("is refused when that is in truth of the other format", async () => {
      const other = format === "erofs" ? "squashfs" : "erofs";
      const bytes = readFileSync(join(machine.dataDir, imageOf(other)));
      await expectRefused(format, (path) => writeFileSync(path, bytes));
    });
  });

  it("of a squashfs image of which the end is missing is refused", async () => {
    const whole = readFileSync(join(machine.dataDir, large.squashfs ?? ""));
    await expectRefused("squashfs", (path) => writeFileSync(path, whole.subarray(0, whole.length - 8_192)));
  });

  it("that is damaged is called a damaged module", async () => {
    const layers = new Layers(machine.kernel, { lingerMs: 0 });
    const image = machine.imageName("bad", "squashfs");
    writeFileSync(join(machine.dataDir, image), randomBytes(8_192));
    const bad = { name: "bad", image, format: "squashfs" as const, identity: "1" };
    const good = { name: "extra", image: imageOf("erofs"), format: "erofs" as const, identity: "1" };
    await expect(layers.acquire([good, bad])).rejects.toMatchObject({ code: "module_invalid", message: /"bad"/ });
    expect(await machine.kernel.mountedLayers()).toEqual([]);
    rmSync(join(machine.dataDir, image));
  });

  it("of another type is refused", async () => {
    const type = "ext4" as unknown as Format;
    await expect(machine.kernel.mountLayer("one", imageOf("erofs"), type)).rejects.toMatchObject({
      details: { errno: "EINVAL" },
    });
  });

  it.each(names)("may be named %j", async (name) => {
    await machine.kernel.mountLayer(name, imageOf("erofs"), "erofs");
    expect(await machine.kernel.mountedLayers()).toEqual([name]);
    expect((await mountOf(name))?.type).toBe("erofs");
    await machine.kernel.unmountLayer(name);
    expect(await machine.kernel.mountedLayers()).toEqual([]);
  });

  it.each(["", ".", "..", ".hidden", "a/b", "../../l", "/l"])("may not be named %j", async (name) => {
    for (const done of [machine.kernel.mountLayer(name, imageOf("erofs"), "erofs"), machine.kernel.unmountLayer(name)])
      await expect(done).rejects.toMatchObject({ code: "kernel", details: { errno: "EINVAL" } });
  });

  it.each(["a b", "a,b", "a:b", "ü", "a\\b", "a\nb"])("may have an image whose name has %j in it", async (text) => {
    for (const format of formats) {
      const image = machine.imageName(`odd ${text}`, format);
      writeFileSync(join(machine.dataDir, image), readFileSync(join(machine.dataDir, imageOf(format))));
      await machine.kernel.mountLayer("odd", image, format);
      expect(existsSync(`/proc/${await machine.hostPid()}/root/l/odd/opt/extra/file`)).toBe(true);
      await machine.kernel.unmountLayer("odd");
      rmSync(join(machine.dataDir, image));
    }
  });

  it("is refused a second time under the same name, and the first stays", async () => {
    await machine.kernel.mountLayer("one", imageOf("squashfs"), "squashfs");
    for (const format of formats)
      await expect(machine.kernel.mountLayer("one", imageOf(format), format)).rejects.toMatchObject({
        details: { errno: "EEXIST" },
      });
    expect((await mountOf("one"))?.type).toBe("squashfs");
    await expect.poll(loops).toHaveLength(1);
  });

  it("can be unmounted any number of times, and when it was never there", async () => {
    await machine.kernel.mountLayer("one", imageOf("erofs"), "erofs");
    for (let times = 0; times < 3; times++) await machine.kernel.unmountLayer("one");
    await machine.kernel.unmountLayer("two");
  });

  it("is still there for the next sq-host", async () => {
    await machine.kernel.mountLayer("one", imageOf("squashfs"), "squashfs");
    await machine.stop();
    await machine.start();
    expect(await machine.kernel.mountedLayers()).toEqual(["one"]);
    await machine.kernel.unmountLayer("one");
  });
});
