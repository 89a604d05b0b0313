import { execFileSync } from "node:child_process";
import {
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { newImage } from "../../src/core/image-ids.js";
import { makePoolImage, poolImage } from "../../src/store/pool-image.js";
import { lacks } from "../../../test/support/needs.js";
import { mountBase, unmountBase } from "./test-sandbox.js";
import { mountsOf, useKernel } from "./test-kernel.js";

const mebibyte = 1_048_576;
/** Source: asm-generic/errno.h */
const edquot = 122;

describe.skipIf(lacks("root", "btrfs"))("a pool of subvolumes", () => {
  const machine = useKernel();
  const pool = join(machine.dataDir, "pool");
  const path = join(machine.home, "upper");

  beforeAll(async () => {
    mkdirSync(path);
    mkdirSync(join(machine.dataDir, "snapshots"));
    await makePoolImage(machine.dataDir, 300);
  });
  const open = () => machine.kernel.pool.mount(poolImage);
  const mount = (index: number, name = "one.0", sizeBytes = 32 * mebibyte): Promise<void> =>
    machine.kernel.mountUpper({ path, image: `pool/u/${name}`, sizeBytes, index });
  const unmount = (): Promise<void> => machine.kernel.unmountUpper(path);
  const clear = async (): Promise<void> => {
    await unmount();
    if (!existsSync(join(pool, "u"))) return;
    for (const folder of ["u", "s"])
      for (const name of readdirSync(join(pool, folder))) await machine.kernel.pool.remove(`${folder}/${name}`);
    await machine.kernel.pool.unmount();
  };
  afterEach(clear);
  afterAll(clear);

  const refused = async (work: Promise<unknown>, errno: string): Promise<void> => {
    await expect(work).rejects.toMatchObject({ code: "kernel", details: { errno } });
  };

  it("is mounted once, closed to others, without devices and setuid programs", async () => {
    await open();
    await open();
    const mounts = mountsOf("self").filter((line) => line.path === pool);
    expect(mounts).toMatchObject([{ type: "btrfs" }]);
    expect(mounts[0]?.options).toEqual(expect.arrayContaining(["rw", "nosuid", "nodev", "noatime"]));
    expect(statSync(pool).mode & 0o777).toBe(0o700);
    await machine.kernel.pool.unmount();
    await machine.kernel.pool.unmount();
    expect(mountsOf("self").filter((line) => line.path === pool)).toEqual([]);
  });

  it("takes its loop device again while something still lives there", async () => {
    await open();
    await mount(1);
    const loops = () =>
      execFileSync("losetup", ["-j", join(machine.dataDir, poolImage), "-n", "-O", "NAME"])
        .toString()
        .trim()
        .split("\n");
    const [device] = loops();
    await machine.kernel.pool.unmount(); // the upper keeps the file system
    await open();
    expect(loops()).toEqual([device]);
    writeFileSync(join(path, "data/file"), "still one file system");
    expect(readFileSync(join(pool, "u/one.0/data/file"), "utf8")).toBe("still one file system");
  });

  it("gives an upper to the cell's root, with a quota, and keeps it", async () => {
    await open();
    await mount(5);
    const uid = machine.uidBase + 5 * 65_536;
    expect(statSync(join(path, "data"))).toMatchObject({ uid, gid: uid });
    expect(mountsOf("self").find((line) => line.path === path)?.options).toEqual(
      expect.arrayContaining(["nosuid", "nodev"]),
    );
    expect(() => writeFileSync(join(path, "data/big"), Buffer.alloc(40 * mebibyte, 1))).toThrow(
      expect.objectContaining({ errno: -edquot }) as Error,
    );
    rmSync(join(path, "data/big"));
    await machine.kernel.flushPool();
    writeFileSync(join(path, "data/big"), Buffer.alloc(8 * mebibyte, 1));
    await machine.kernel.flushPool();
    const bytes = await machine.kernel.pool.bytes("u/one.0");
    expect(bytes).toBeGreaterThanOrEqual(8 * mebibyte);
    expect(bytes).toBeLessThan(9 * mebibyte);
    await unmount();
    await machine.kernel.pool.unmount();
    await open();
    await mount(5, "one.0", 0);
    expect(statSync(join(path, "data/big")).size).toBe(8 * mebibyte);
    await unmount();
    // what a crash has left of that name is never inherited
    await mount(6);
    expect(readdirSync(join(path, "data"))).toEqual([]);
  });

  it.each([
    ["its own number", 3],
    ["another number", 4],
  ])("shows a snapshot to a cell of %s with the owners that the writer saw", async (_, reader) => {
    await open();
    const base = await mountBase(machine);
    await mount(3);
    const own = machine.uidBase + 3 * 65_536;
    const file = join(path, "data/file");
    writeFileSync(file, "then", { mode: 0o4755 });
    chownSync(file, own + 12, own + 34);
    execFileSync("mknod", [join(path, "data/opt"), "c", "0", "0"]);
    execFileSync("setfattr", ["-n", "user.note", "-v", "kept", file]);
    const server = createServer();
    await new Promise<void>((done) => server.listen(join(path, "data/socket"), done));
    const image = newImage(3);
    const key = `snapshot-${image}@0.subvolume`;
    expect(await machine.kernel.snapshotUpper("pool/u/one.0", `pool/s/${image}`)).toBeLessThan(mebibyte);
    await new Promise((done) => server.close(done)); // which removes it
    writeFileSync(file, "later");
    await unmount();
    await machine.kernel.mountLayer(key, `pool/s/${image}`, "subvolume");
    await machine.kernel.makeCell(reader, { nestedUserns: false });
    await mount(reader, "two.0");
    try {
      await machine.kernel.giveRoot(reader, {
        fresh: true,
        named: false,
        hostname: "h",
        upper: path,
        layers: [key, base],
      });
      const show =
        "cat /file; echo; stat -c '%u %g %a' /file; test -S /socket || echo lost; ls -d /opt 2>&1; touch /file && stat -c '%u %g' /file";
      expect((await machine.run(reader, show)).stdout.toString()).toMatch(
        /^then\n12 34 4?755\nls: .*\/opt.*\n12 34\n$/,
      );
    } finally {
      await machine.kernel.killCell(reader);
      await machine.kernel.unmountLayer(key);
      await unmountBase(machine);
    }
    // and is captured the same
    await machine.kernel.mountLayer(key, `pool/s/${image}`, "subvolume");
    expect(await machine.kernel.capture("snapshots/whole.erofs", [{ kind: "layer", key }])).toBeGreaterThan(0);
    await machine.kernel.unmountLayer(key);
    await machine.kernel.mountLayer("whole", "snapshots/whole.erofs", "erofs");
    const seen = `/proc/${await machine.hostPid()}/root/l/whole`;
    expect(statSync(join(seen, "file"))).toMatchObject({ uid: 12, gid: 34 });
    expect(statSync(join(seen, "opt")).isCharacterDevice()).toBe(true);
    expect(statSync(join(seen, "socket")).isSocket()).toBe(true);
    const note = execFileSync("getfattr", ["--absolute-names", "--only-values", "-n", "user.note", join(seen, "file")]);
    expect(note.toString()).toBe("kept");
    await machine.kernel.unmountLayer("whole");
    execFileSync("rm", [join(machine.dataDir, "snapshots/whole.erofs")]);
  });

  it("removes subvolumes any number of times, and follows no link", async () => {
    await open();
    await mount(1);
    await unmount();
    await machine.kernel.pool.remove("u/one.0");
    await machine.kernel.pool.remove("u/one.0");
    expect(readdirSync(join(pool, "u"))).toEqual([]);
    mkdirSync(join(pool, "u/plain"));
    symlinkSync("../s", join(pool, "u/link"));
    await refused(machine.kernel.pool.remove("u/plain"), "ENOTDIR");
    await refused(machine.kernel.pool.remove("u/link"), "ELOOP");
    await refused(machine.kernel.mountLayer("x", "pool/s/never", "subvolume"), "ENOENT");
    for (const name of ["", "u", "u/", "/u/x", "x/y", "u/../s", "u/.", "u/a/b", "../u/x", "s"]) {
      await refused(machine.kernel.pool.remove(name), "EINVAL");
      await refused(machine.kernel.pool.snapshot(name, "s/x"), "EINVAL");
    }
    execFileSync("rm", ["-r", join(pool, "u/plain"), join(pool, "u/link")]);
  });

  it("is refused where there is none, or something else", async () => {
    await refused(machine.kernel.pool.remove("u/x"), "ENODEV");
    await refused(mount(1), "ENODEV");
    await refused(machine.kernel.pool.mount("../x"), "EBADMSG");
    await refused(machine.kernel.pool.mount("missing"), "ENOENT");
    await refused(machine.kernel.pool.mount(null), "EINVAL");
    writeFileSync(join(machine.dataDir, "broken"), Buffer.alloc(mebibyte, 7));
    await expect(machine.kernel.pool.mount("broken")).rejects.toMatchObject({ code: "kernel" });
  });

  it("goes on after its workers, and sq-host, were killed", async () => {
    await open();
    await mount(1);
    await machine.kernel.flushPool();
    const parent = String(await machine.hostPid());
    const workers = readdirSync("/proc").filter((pid) => {
      if (!/^\d+$/.test(pid) || !existsSync(`/proc/${pid}/stat`)) return false;
      const [name = "", rest = ""] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ");
      return name.endsWith("(sq-pool") && rest.split(" ")[1] === parent;
    });
    expect(workers).toHaveLength(1);
    for (const pid of workers) process.kill(Number(pid), "SIGKILL");
    await expect
      .poll(() =>
        machine.kernel.flushPool().then(
          () => true,
          () => false,
        ),
      )
      .toBe(true);
    process.kill(Number(parent), "SIGKILL");
    await expect.poll(() => machine.restarts.length).toBe(1);
    await machine.kernel.snapshotUpper("pool/u/one.0", `pool/s/${newImage(1)}`);
  });

  it("does many things at once", async () => {
    await open();
    await mount(1);
    const images = Array.from({ length: 20 }, () => `pool/s/${newImage(1)}`);
    await Promise.all(images.map((image) => machine.kernel.snapshotUpper("pool/u/one.0", image)));
    await Promise.all([1, 2, 3, 4, 5].map(() => machine.kernel.flushPool()));
    expect(readdirSync(join(pool, "s"))).toHaveLength(20);
    await Promise.all(images.map((image) => machine.kernel.pool.remove(image.slice("pool/".length))));
    expect(readdirSync(join(pool, "s"))).toEqual([]);
  });
});
