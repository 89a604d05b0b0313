import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { Ext4Template } from "../../src/store/ext4-template.js";
import { lacks } from "../../../test/support/needs.js";
import { mountsOf, useKernel } from "./test-kernel.js";

const mebibyte = 1_048_576;

describe.skipIf(lacks("root"))("an upper", () => {
  const machine = useKernel();
  const path = join(machine.home, "upper");
  const image = join(machine.home, "upper.img");
  const template = new Ext4Template(join(machine.home, "template"));

  beforeEach(() => {
    rmSync(image, { recursive: true, force: true });
    mkdirSync(path, { recursive: true });
  });

  const mount = (index: number, from: string | null, sizeBytes = 4 * mebibyte): Promise<void> =>
    machine.kernel.mountUpper({ path, image: from, sizeBytes, index });
  const unmount = (): Promise<void> => machine.kernel.unmountUpper(path);
  const mounts = () => mountsOf("self").filter((line) => line.path === path);
  const loops = (): string[] =>
    readdirSync("/sys/block").filter((name) => {
      try {
        return readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").includes(image);
      } catch {
        return false; // not in use
      }
    });

  /** Fills it until it is full; returns the bytes that went in. */
  function fill(): number {
    const file = openSync(join(path, "data/fill"), "w");
    let size = 0;
    try {
      for (;;) {
        writeFileSync(file, Buffer.alloc(65_536, 1));
        size += 65_536;
        if (size > 64 * mebibyte) return size;
      }
    } catch (error) {
      expect(error).toMatchObject({ code: "ENOSPC" });
      return size;
    } finally {
      closeSync(file);
    }
  }

  it("is unmounted also where sq-host dies meanwhile, by the next one", async () => {
    await mount(3, null);
    const pid = await machine.kernel.hostPid();
    if (pid === undefined) throw new Error("there is no sq-host");
    process.kill(pid, "SIGSTOP");
    const unmounted = unmount();
    process.kill(pid, "SIGKILL");
    await unmounted;
    expect(mounts()).toEqual([]);
    expect(await machine.kernel.hostPid()).not.toBe(pid);
  });

  it("in memory belongs to the cell's root, and devices and setuid programs have no effect there", async () => {
    await mount(5, null);
    expect(mounts()).toMatchObject([{ type: "tmpfs" }]);
    expect(mounts()[0]?.options).toEqual(expect.arrayContaining(["rw", "nosuid", "nodev"]));
    const uid = machine.uidBase + 5 * 65_536;
    expect(statSync(join(path, "data"))).toMatchObject({ uid, gid: uid });
    expect(statSync(join(path, "work"))).toMatchObject({ uid: 0, gid: 0 });
    expect(statSync(join(path, "work")).mode & 0o777).toBe(0o700);
    await unmount();
    expect(mounts()).toEqual([]);
    expect(readdirSync(path)).toEqual([]);
  });

  it("in memory takes as much as it may, and no more", async () => {
    await mount(0, null);
    const size = fill();
    expect(size).toBeLessThanOrEqual(4 * mebibyte);
    expect(size).toBeGreaterThan(3 * mebibyte);
    await unmount();
  });

  it("in memory takes no more files than it may", async () => {
    await mount(0, null, mebibyte);
    const make = (): void => {
      for (let index = 0; index <= 65_536; index++) mkdirSync(join(path, `data/${index}`));
    };
    expect(make).toThrow(/ENOSPC/);
    await unmount();
  });

  it("on an image takes as much as it may, and survives being unmounted", async () => {
    await template.make(image, 16 * mebibyte);
    await mount(6, image);
    expect(mounts()).toMatchObject([{ type: "ext4" }]);
    expect(mounts()[0]?.options).toEqual(expect.arrayContaining(["rw", "nosuid", "nodev"]));
    expect(statSync(join(path, "data")).uid).toBe(machine.uidBase + 6 * 65_536);
    const [loop = ""] = loops();
    expect(readFileSync(`/sys/block/${loop}/loop/autoclear`, "utf8").trim()).toBe("1");
    const size = fill();
    expect(size).toBeLessThan(16 * mebibyte);
    expect(size).toBeGreaterThan(6 * mebibyte);
    rmSync(join(path, "data/fill"));
    writeFileSync(join(path, "data/kept"), "still here");
    await unmount();
    await expect.poll(loops).toEqual([]);
    await mount(6, image);
    expect(readFileSync(join(path, "data/kept"), "utf8")).toBe("still here");
    await unmount();
  });

  it("that is in use goes from its place at once, and its device when it is no longer", async () => {
    await template.make(image, 16 * mebibyte);
    await mount(0, image);
    const held = openSync(join(path, "data/held"), "w");
    await unmount();
    expect(mounts()).toEqual([]);
    expect(loops()).toHaveLength(1);
    writeFileSync(held, "to nobody");
    closeSync(held);
    await expect.poll(loops).toEqual([]);
  });

  it.each<[string, () => void, RegExp]>([
    ["missing", () => undefined, /ENOENT/],
    ["empty", () => writeFileSync(image, ""), /^E/],
    ["no file system", () => writeFileSync(image, Buffer.alloc(mebibyte, 7)), /^E/],
    ["a directory", () => mkdirSync(image), /EISDIR|EINVAL/],
    ["a pipe", () => execFileSync("mkfifo", [image]), /EINVAL/],
    ["a link", () => symlinkSync("/etc/passwd", image), /ELOOP/],
  ])("whose image is %s is refused and leaves nothing", async (_, put, errno) => {
    put();
    const error: unknown = await mount(0, image).catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code: "kernel", details: { errno: expect.stringMatching(errno) as string } });
    expect(mounts()).toEqual([]);
    await expect.poll(loops).toEqual([]);
  });

  it("whose place does not exist is refused and leaves nothing", async () => {
    rmSync(path, { recursive: true });
    await template.make(image, 16 * mebibyte);
    for (const from of [null, image])
      await expect(mount(0, from)).rejects.toMatchObject({ details: { errno: "ENOENT" } });
    await expect.poll(loops).toEqual([]);
  });

  it("can be unmounted any number of times, when it is mounted twice, and when it never was", async () => {
    await unmount();
    await mount(0, null);
    await mount(0, null);
    expect(mounts()).toHaveLength(2);
    await unmount();
    expect(mounts()).toEqual([]);
    await unmount();
    await machine.kernel.unmountUpper(join(machine.home, "never/there"));
  });

  it("is not unmounted through a link", async () => {
    await mount(0, null);
    const link = join(machine.home, "link");
    symlinkSync(path, link);
    await machine.kernel.unmountUpper(link);
    expect(mounts()).toHaveLength(1);
    rmSync(link);
    await unmount();
  });

  it("must have an absolute path", async () => {
    const plan = { path: "upper", image: null, sizeBytes: mebibyte, index: 0 };
    await expect(machine.kernel.mountUpper(plan)).rejects.toMatchObject({ details: { errno: "EBADMSG" } });
    await expect(machine.kernel.unmountUpper("upper")).rejects.toMatchObject({ details: { errno: "EBADMSG" } });
  });
});
