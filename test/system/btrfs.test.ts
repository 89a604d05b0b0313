import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { hostState } from "../support/leaks.js";
import { lacks } from "../support/needs.js";
import { patience } from "../support/patience.js";
import { simulateReboot } from "../support/reboot.js";
import { useSquashd } from "../support/own-squashd.js";

const squashd = useSquashd({
  env: { SQUASH_UPPER_BACKEND: "btrfs", SQUASH_POOL_MB: "512", SQUASH_UPPER_LIMIT_MB: "64" },
});
const mebibyte = 1_048_576;
const marks = [squashd.mark];
const pool = join(squashd.dataDir, "pool");

async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

async function destroyAll(): Promise<void> {
  await squashd.destroyAll();
}

/** what is removed is freed some seconds later */
const wait = { timeout: 20_000 * patience, interval: 250 };
const subvolumes = () => ({ uppers: readdirSync(join(pool, "u")), snapshots: readdirSync(join(pool, "s")) });

/** every kind of file, owner and attribute that a snapshot must keep */
const write = `mkdir -p /w/deep/er /w/opaque; echo one >/w/file; ln /w/file /w/same; ln -s file /w/link; mkfifo -m 600 /w/pipe
  chown 12:34 /w/deep; chmod 4751 /w/same; touch -d @1000000000 /w/deep/er; rm /opt/extra/file; truncate -s 10000000 /w/holes
  echo end >>/w/holes; rm -r /var; mkdir /var; echo only >/var/this; chown user:extra /var/this; chmod 2770 /w/opaque`;
const files =
  "find / -xdev ! -path '/proc*' ! -path '/dev*' ! -path '/sys*' ! -path /etc ! -path '/etc/host*' ! -path /etc/machine-id ! -path /etc/resolv.conf";
const survey = `{ ${files} -exec stat -c '%n %f %u %g %Y %T %t' {} +; ${files} ! -type d -exec stat -c '%n %h %s' {} +;
  ${files} -type f -exec md5sum {} +; } | sort`;

/** Tries again while the pool, which an earlier test has filled, has no room yet: the kernel cleans up in the background. */
async function withRoom<T>(work: () => Promise<T>): Promise<T> {
  for (const deadline = Date.now() + 60_000; ;) {
    try {
      return await work();
    } catch (error) {
      if (!String(error).includes("ENOSPC") || Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

describe.skipIf(lacks("root", "btrfs"))("uppers on a btrfs pool", () => {
  afterEach(async () => {
    await destroyAll();
    await squashd.client.collect();
    expect(subvolumes()).toEqual({ uppers: [], snapshots: [] });
  });

  it("are shared by forks, and forks of forks, with all that files have", async () => {
    const origin = await squashd.client.create({ id: "origin", layers: ["000-base-test", "100-extra"] });
    await print(origin, write);
    const wanted = await print(origin, survey);
    const forks = await origin.fork({ count: 3 });
    expect(subvolumes().snapshots).toHaveLength(1);
    for (const fork of forks) {
      expect(await print(fork, survey)).toBe(wanted);
      expect(Number(await print(fork, "stat -c %b /w/holes"))).toBeLessThan(100);
    }
    const [first] = forks;
    if (first === undefined) throw new Error("there is no fork");
    await print(first, "chown 7:8 /w/file; rm /w/link; echo more >>/w/holes; rm /var/this");
    const changed = await print(first, survey);
    const [second] = await first.fork({ target_id: "second" });
    await origin.destroy();
    expect(second === undefined ? "" : await print(second, survey)).toBe(changed);
    expect(await print(first, survey)).toBe(changed);
    expect(forks[1] === undefined ? "" : await print(forks[1], survey)).toBe(wanted);
  });

  it("are captured as a whole when the stack is deep, also where forks have other user ids", async () => {
    let sandbox = await squashd.client.create({ id: "deep0", layers: ["000-base-test", "100-extra"] });
    await print(sandbox, write);
    for (let depth = 1; depth <= 18; depth++) {
      const [fork] = await sandbox.fork({ target_id: `deep${depth}` });
      await sandbox.destroy();
      if (fork === undefined) throw new Error("there is no fork");
      sandbox = fork;
      await print(
        sandbox,
        `echo ${depth} >>/w/file; chown ${depth}:${depth} /w/deep/er; touch -d @1000000000 /w/deep/er`,
      );
    }
    await sandbox.snapshot({ label: "end" });
    expect((await sandbox.history())[0]?.depth).toBeLessThan(16);
    const wanted = await print(sandbox, survey);
    expect(await print(sandbox, "wc -l </w/file; stat -c %u:%g /w/deep/er /w/deep")).toBe("19\n18:18\n12:34\n");
    expect(await print(sandbox, "stat -c %U:%G /var/this")).toBe("user:extra\n");
    await sandbox.restore("end");
    expect(await print(sandbox, survey)).toBe(wanted);
    expect(subvolumes().snapshots.length).toBeLessThan(16);
  });

  it("take as much as they may, which is the sandbox's own matter, and what is deleted can be written again", async () => {
    const [full, other] = await Promise.all(["full", "other"].map((id) => squashd.client.create({ id })));
    if (full === undefined || other === undefined) throw new Error("there is no sandbox");
    const fill = "dd if=/dev/zero of=/big bs=1M count=100";
    expect((await full.exec(fill)).stderr).toMatch(/quota exceeded|No space left/i);
    await print(other, "dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null");
    await full.snapshot({ label: "full" });
    const { upper_bytes, upper_limit_bytes } = await full.info();
    expect(upper_bytes).toBeGreaterThan(50 * mebibyte);
    expect(upper_bytes).toBeLessThanOrEqual(upper_limit_bytes);
    // a snapshot of a full upper holds the content, but not the sandbox's quota
    await print(full, "rm /big; sync; dd if=/dev/zero of=/again bs=1M count=40 2>/dev/null; sync");
    await full.restore("full");
    expect(await print(full, "ls /again /big 2>/dev/null; exit 0")).toBe("/big\n");
  });

  it("fail with a clear error when the pool is full, and snapshots can then be deleted", async () => {
    const hogs: Sandbox[] = [];
    for (let number = 0; number < 12; number++) {
      const id = `hog${number}`;
      try {
        hogs.push(await squashd.client.create({ id }));
        await squashd.client.sandbox(id).snapshot({ label: "empty" });
      } catch (error) {
        expect(error).toMatchObject({ message: /No space|ENOSPC/ });
        break;
      }
      const { exit_code } = await squashd.client.sandbox(id).exec("dd if=/dev/urandom of=/big bs=1M count=55 && sync");
      await squashd.client
        .sandbox(id)
        .snapshot({ label: "kept" })
        .catch(() => undefined);
      if (exit_code !== 0) break;
    }
    const [first] = hogs;
    expect(hogs.length).toBeGreaterThan(4);
    if (first === undefined) throw new Error("there is no sandbox");
    await first.deleteSnapshot("kept");
    await first.exec("rm /big; sync");
    await expect.poll(() => print(first, "echo room >/room && cat /room").catch(() => ""), wait).toBe("room\n");
    expect((await squashd.client.health()).status).toBe("ok");
    await destroyAll();
    const { bsize } = statfsSync(pool);
    await expect.poll(() => statfsSync(pool).bavail * bsize, wait).toBeGreaterThan(300 * mebibyte);
    // room for metadata comes back later than that for content
    const probe = await squashd.client.create({ id: "probe" });
    const canSnapshot = (): Promise<boolean> =>
      probe.snapshot().then(
        () => true,
        () => false,
      );
    await expect.poll(canSnapshot, wait).toBe(true);
  });

  it("survive a kill of squashd and a restart of the machine, with snapshots and forks", async () => {
    const origin = await withRoom(() => squashd.client.create({ id: "origin" }));
    await print(origin, "echo kept >/root/file; chown user:extra /root/file");
    await withRoom(() => origin.snapshot({ label: "then" }));
    const [fork] = await withRoom(() => origin.fork({ target_id: "fork" }));
    await print(origin, "echo later >/root/file; sync");
    await squashd.end("SIGKILL");
    await squashd.start();
    expect(await print(origin, "cat /root/file; stat -c %U:%G /root/file")).toBe("later\nuser:extra\n");
    await simulateReboot(squashd);
    await squashd.start();
    for (const [sandbox, text] of [
      [origin, "later"],
      [fork, "kept"],
    ] as const) {
      if (sandbox === undefined) throw new Error("there is no fork");
      await expect.poll(async () => (await sandbox.info()).state).toBe("ready");
      expect(await print(sandbox, "cat /root/file; stat -c %U:%G /root/file")).toBe(`${text}\nuser:extra\n`);
    }
    await origin.restore("then");
    expect(await print(origin, "cat /root/file")).toBe("kept\n");
  });

  it("that nobody has are removed at a start, and the pool goes when the last sandbox has", async () => {
    await squashd.client.create({ id: "lost" });
    await simulateReboot(squashd);
    // a subvolume of which the machine's crash took the directory
    const home = join(squashd.dataDir, "sandboxes/lost");
    rmdirSync(join(home, "upper.0"));
    await squashd.start();
    expect(subvolumes().uppers).toEqual([]);
    mkdirSync(join(home, "upper.0"));
    await destroyAll();
    await squashd.end();
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(pool);
    expect(existsSync(join(squashd.dataDir, "uppers.btrfs"))).toBe(true);
    await expect.poll(() => hostState(marks).loops).toEqual([]);
    // what was made is used again, whatever the settings say now
    await squashd.start({ SQUASH_UPPER_BACKEND: "tmpfs" });
    expect(subvolumes()).toEqual({ uppers: [], snapshots: [] });
    await squashd.end();
    await squashd.start({ SQUASH_UPPER_BACKEND: "btrfs" });
  });
});
