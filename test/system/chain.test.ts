import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { HistoryEntry, JobInfo, Sandbox } from "@squash/sdk";
import type { Ended } from "../support/commands.js";
import { lacks } from "../support/needs.js";
import { patience } from "../support/patience.js";
import { useSquashd } from "../support/own-squashd.js";

const squashd = useSquashd({ env: { SQUASH_SUBNET: "none" } });
const folder = join(squashd.dataDir, "modules");
const layers = ["000-base-test", "100-extra"];

afterEach(async () => {
  await squashd.destroyAll();
  for (const { name } of await squashd.client.modules())
    if (name.startsWith("2")) await squashd.client.removeModule(name);
  expect(readdirSync(folder).filter((name) => name.startsWith("."))).toEqual([]);
  await until(() => readdirSync(join(squashd.dataDir, "snapshots")).length === 0);
});

const sq = (...args: string[]): Promise<Ended> => squashd.sq(...args);

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000 * patience;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error("it does not come about");
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

/** every file with all that must be kept of it, but for what a sandbox has of its own */
const files =
  "find / -xdev ! -path '/proc*' ! -path '/dev*' ! -path '/sys*' ! -path '/etc/host*' ! -path /etc/machine-id ! -path /etc/resolv.conf";
const survey = `{ ${files} -exec stat -c '%n %f %u %g %Y %T %t' {} +; ${files} ! -type d -exec stat -c '%n %h %s' {} +;
  ${files} -type f -exec md5sum {} +; } | grep -v '^/etc ' | sort`;

async function endOf(job: JobInfo): Promise<JobInfo> {
  let last = job;
  for await (const next of squashd.client.watchJob(job.id)) last = next;
  return last;
}

async function entry(sandbox: Sandbox, label: string): Promise<HistoryEntry> {
  const found = (await sandbox.history()).find((one) => one.label === label);
  if (found === undefined) throw new Error(`there is no snapshot ${label}`);
  return found;
}

const labels = async (sandbox: Sandbox): Promise<string[]> => (await sandbox.history()).map(({ label }) => label);

/** The file of a snapshot that has only one. */
function onlyImage(): string {
  const [name, ...others] = readdirSync(join(squashd.dataDir, "snapshots")).filter((each) => each.endsWith(".erofs"));
  expect(others).toEqual([]);
  return join(squashd.dataDir, "snapshots", name ?? "");
}

describe.skipIf(lacks("root"))("a promoted snapshot", () => {
  it("is a module that gives exactly the files of that moment above the same modules", async () => {
    const sandbox = await squashd.client.create({ id: "a", layers });
    await print(
      sandbox,
      "mkdir -p /w/deep; echo one >/w/file; ln /w/file /w/same; rm /opt/extra/file; echo 1 >/etc/first",
    );
    await sandbox.snapshot({ label: "below" });
    await sandbox.restore("below");
    await print(
      sandbox,
      "rm -r /var; mkdir /var; echo only >/var/this; chown 12:34 /w/deep; truncate -s 5000000 /w/holes; mkfifo /w/pipe; rm /etc/first",
    );
    await sandbox.snapshot({ label: "moment" });
    const wanted = await print(sandbox, survey);
    await print(sandbox, "rm -r /w; echo later >/later");

    expect(await sq("promote", "a", "moment", "200-mine")).toMatchObject({ status: 0, stdout: "200-mine\n" });
    expect(await squashd.client.module("200-mine")).toMatchObject({
      format: "erofs",
      formats: ["erofs"],
      source: "promote a@moment",
      requires: ["100-extra", "000-base-test"],
      problem: null,
    });
    await sandbox.destroy();
    const other = await squashd.client.create({ id: "b", layers: [...layers, "200-mine"] });
    expect(await print(other, survey)).toBe(wanted);
    await expect(squashd.client.create({ id: "c", layers: ["000-base-test", "200-mine"] })).rejects.toMatchObject({
      code: "module_requires",
    });
    await squashd.end("SIGKILL");
    await squashd.start();
    expect(await print(other, "cat /var/this")).toBe("only\n");
  });

  it("is refused with a reason, and leaves nothing then", async () => {
    const sandbox = await squashd.client.create({ id: "a", layers });
    await sandbox.snapshot({ label: "one" });
    for (const [request, code] of [
      [{ snapshot: "one", module: "100-extra" }, "invalid_request"],
      [{ snapshot: "one", module: "050-low" }, "invalid_request"],
      [{ snapshot: "one", module: "../x" }, "invalid_request"],
      [{ snapshot: "never", module: "200-x" }, "snapshot_not_found"],
    ] as const)
      await expect(sandbox.promote(request)).rejects.toMatchObject({ code });
    expect(await endOf(await sandbox.promote({ snapshot: "one", module: "200-x" }))).toMatchObject({ state: "done" });
    await expect(sandbox.promote({ snapshot: "one", module: "200-x" })).rejects.toMatchObject({
      code: "module_exists",
    });
    const user = await squashd.client.create({ id: "user", layers: [...layers, "200-x"] });
    const job = await endOf(await sandbox.promote({ snapshot: "one", module: "200-x", replace: true }));
    expect(job).toMatchObject({ state: "failed", code: "module_in_use" });
    await user.destroy();
    for (const name of readdirSync(folder)) if (name.startsWith("100-extra")) rmSync(join(folder, name));
    await expect(sandbox.promote({ snapshot: "one", module: "200-y" })).rejects.toMatchObject({
      code: "module_not_found",
    });
    await squashd.end();
    await squashd.start(); // brings the test's modules back
  });

  it("is called off at once by its job's end, whatever its size", async () => {
    const sandbox = await squashd.client.create({ id: "a" });
    await print(sandbox, "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null");
    await sandbox.snapshot({ label: "big" });
    const { id } = await sandbox.promote({ snapshot: "big", module: "200-big" });
    await until(() => readdirSync(folder).some((name) => name.startsWith(".")));
    await squashd.client.removeJob(id);
    expect((await squashd.client.job(id)).state).toBe("cancelled");
    expect(readdirSync(folder).filter((name) => name.includes("200-big") || name.startsWith("."))).toEqual([]);
  });
});

describe.skipIf(lacks("root"))("retention", () => {
  it("keeps the newest, the young, the pinned and what is in use; the rest stays whole", async () => {
    const sandbox = await squashd.client.create({ id: "r", owner: "ann", retention: { keep_last: 2 } });
    expect((await sandbox.info()).retention).toEqual({ keep_last: 2, keep_for_s: 0 });
    for (const label of ["one", "two"]) {
      await print(sandbox, `echo ${label} >/${label}`);
      expect(await sandbox.snapshot({ label })).toMatchObject({ removed: [] });
    }
    await sandbox.pinSnapshot("one");
    await sandbox.restore("two");
    await print(sandbox, "echo three >/three");
    await sandbox.snapshot({ label: "three" });
    await print(sandbox, "echo four >/four");
    expect(await sandbox.snapshot({ label: "four", by: "bob" })).toMatchObject({ removed: [] }); // two is what was restored
    await sandbox.restore("four");
    await sandbox.snapshot({ label: "five" });
    expect(await labels(sandbox)).toEqual(["one", "four", "five"]);
    expect((await sandbox.history()).map(({ parent, by, origin, pinned }) => [parent, by, origin, pinned])).toEqual([
      [null, "ann", "api", true],
      ["one", "bob", "api", false],
      ["four", "ann", "api", false],
    ]);
    await sandbox.restore("five");
    expect(await print(sandbox, "cat /one /two /three /four")).toBe("one\ntwo\nthree\nfour\n");
    expect(await sandbox.setRetention({ keep_for_s: 3600 })).toEqual({ keep_last: 0, keep_for_s: 3600, removed: [] });
    await sandbox.pinSnapshot("one", false);
    expect(await sandbox.setRetention({ keep_last: 1, keep_for_s: 0 })).toMatchObject({ removed: ["one", "four"] });
    expect(await sandbox.setRetention({})).toEqual({ keep_last: 0, keep_for_s: 0, removed: [] });
    expect(await print(sandbox, "cat /one /four")).toBe("one\nfour\n");
  });

  it("lets time go by, also over a kill of squashd, with the daemon's own setting", async () => {
    const sandbox = await squashd.client.create({ id: "t" });
    for (const label of ["one", "two", "three"]) await sandbox.snapshot({ label });
    await squashd.end("SIGKILL");
    await squashd.start({ SQUASH_KEEP_FOR_S: "1" });
    expect((await sandbox.info()).retention).toEqual({ keep_last: 0, keep_for_s: 1 });
    await until(async () => (await labels(sandbox)).join() === "three");
    expect(await sandbox.history()).toMatchObject([{ parent: null, head: true }]);
    await squashd.end();
    await squashd.start({ SQUASH_KEEP_FOR_S: "0" });
    expect(await labels(sandbox)).toEqual(["three"]);
  });
});

describe.skipIf(lacks("root"))("a long chain", () => {
  it("is merged in the background with the same files for all that have a part in it", async () => {
    const sandbox = await squashd.client.create({ id: "deep", layers });
    const wanted: string[] = [];
    for (let round = 0; round < 11; round++) {
      await print(
        sandbox,
        `echo ${round} >/file-${round}; rm -f /file-${round - 3} /opt/extra/file; rm -rf /dir /var; mkdir /dir; : >/dir/${round}
        mkdir -p /keep; echo ${round} >/keep/${round}; ln /keep/${round} /keep/same-${round}; chmod 7${round % 8}1 /keep/${round}`,
      );
      await sandbox.snapshot({ label: `s${round}` });
      wanted.push(await print(sandbox, survey));
      await sandbox.restore(`s${round}`);
    }
    const [fork] = await sandbox.fork({ target_id: "fork" });
    await until(async () => (await sandbox.history()).every(({ depth, sha256 }) => depth <= 8 && sha256 !== null));
    expect(await print(sandbox, survey)).toBe(wanted[10]); // a living stack has its old images
    for (const round of [10, 9, 8, 7, 0]) {
      await sandbox.restore(`s${round}`, { running: "kill" });
      expect(await print(sandbox, survey)).toBe(wanted[round]);
    }
    if (fork !== undefined) expect(await print(fork, survey)).toBe(wanted[10]);
    await sandbox.restore("s10");
    await print(sandbox, "echo on >/on");
    await sandbox.snapshot({ label: "on" });
    await squashd.end("SIGKILL");
    await squashd.start();
    await sandbox.restore("s5");
    await sandbox.restore("on");
    expect(await print(sandbox, "cat /on /keep/0 /keep/10")).toBe("on\n0\n10\n");
    expect(await squashd.client.collect({ dry_run: true })).toEqual({ images: [], files: [], bytes: 0 });
  });
});

describe.skipIf(lacks("root"))("an image that is damaged", () => {
  it.each([
    ["cut off", (image: string) => truncateSync(image, 4096 + 128)],
    [
      "changed by a bit",
      (image: string) => {
        const bytes = readFileSync(image);
        const at = bytes.indexOf("precious");
        bytes[at] = (bytes[at] ?? 0) ^ 1;
        writeFileSync(image, bytes);
      },
    ],
    ["gone", (image: string) => rmSync(image)],
  ])("by being %s is refused, and the sandbox stays as it was", async (_, damage) => {
    const sandbox = await squashd.client.create({ id: "d" });
    await print(sandbox, "echo precious >/file; echo 1 >/kept");
    await sandbox.snapshot({ label: "one" });
    await until(async () => (await entry(sandbox, "one")).sha256 !== null);
    await print(sandbox, "echo later >/file");
    damage(onlyImage());
    await expect(sandbox.restore("one")).rejects.toMatchObject({ code: "snapshot_damaged" });
    await expect(sandbox.fork({ from: "one" })).rejects.toMatchObject({ code: "snapshot_damaged" });
    const job = await endOf(await sandbox.promote({ snapshot: "one", module: "200-x" }));
    expect(job).toMatchObject({ state: "failed", code: "snapshot_damaged" });
    expect(await sandbox.info()).toMatchObject({ state: "ready", active_snapshot: null });
    expect(await print(sandbox, "cat /file /kept")).toBe("later\n1\n");
    await sandbox.deleteSnapshot("one");
  });

  it("is found after a restart of the machine, though its file seems to be the same", async () => {
    const sandbox = await squashd.client.create({ id: "d" });
    await print(sandbox, "echo precious >/file");
    await sandbox.snapshot({ label: "one" });
    await until(async () => (await entry(sandbox, "one")).sha256 !== null);
    const seal = onlyImage().replace(/erofs$/, "seal");
    const kept = JSON.parse(readFileSync(seal, "utf8")) as Record<string, unknown>;
    // what another boot has sealed: another content, in the same file
    writeFileSync(seal, JSON.stringify({ ...kept, boot: "another", sha256: "0".repeat(64) }));
    await squashd.end();
    await squashd.start();
    await expect(sandbox.restore("one")).rejects.toMatchObject({
      code: "snapshot_damaged",
      message: /its sha-256 is [0-9a-f]{64}, it was 0{64}/,
    });
    writeFileSync(seal, JSON.stringify({ ...kept, boot: "another" }));
    await squashd.end();
    await squashd.start();
    await sandbox.restore("one");
    expect(await print(sandbox, "cat /file")).toBe("precious\n");
    expect(JSON.parse(readFileSync(seal, "utf8"))).toEqual(kept);
  });
});

describe.skipIf(lacks("root"))("a collection", () => {
  it("takes what broke off and what caches hold, and says before what that is", async () => {
    const { dataDir, client } = squashd;
    const old = new Date(Date.now() - 2 * 3600_000);
    mkdirSync(join(dataDir, "cache/oci/sha256"), { recursive: true });
    writeFileSync(join(dataDir, "cache/oci/sha256", "0".repeat(64)), "x".repeat(8192));
    utimesSync(join(dataDir, "cache/oci/sha256", "0".repeat(64)), old, old);
    writeFileSync(join(dataDir, "cache/oci/sha256", "1".repeat(64)), "in use");
    mkdirSync(join(dataDir, "cache/job-4194305-AbCdEf"), { recursive: true }); // no process has such a number
    writeFileSync(join(dataDir, "cache/job-4194305-AbCdEf/part"), "x".repeat(8192));
    writeFileSync(join(folder, `.200-x.erofs.4194305-${"a".repeat(12)}`), "x");
    writeFileSync(join(folder, `.200-y.erofs.${squashd.pid}-${"a".repeat(12)}`), "x");
    writeFileSync(join(folder, "300-by-hand.erofs"), "x");
    writeFileSync(join(dataDir, "snapshots", `${"b".repeat(32)}.erofs`), "x".repeat(4096));
    const plan = await client.collect({ dry_run: true });
    expect(plan).toMatchObject({
      images: ["b".repeat(32)],
      files: [
        "cache/job-4194305-AbCdEf",
        `modules/.200-x.erofs.4194305-${"a".repeat(12)}`,
        `cache/oci/sha256/${"0".repeat(64)}`,
      ],
    });
    expect(plan.bytes).toBeGreaterThan(20_000);
    expect((await sq("gc", "-n")).stdout).toMatch(/^1 image, 3 files, \d+ KiB would go\n$/);
    expect(await client.collect()).toEqual(plan);
    expect(await client.collect()).toEqual({ images: [], files: [], bytes: 0 });
    expect(readdirSync(join(dataDir, "cache/oci/sha256"))).toEqual(["1".repeat(64)]);
    rmSync(join(folder, "300-by-hand.erofs"));
    rmSync(join(folder, `.200-y.erofs.${squashd.pid}-${"a".repeat(12)}`));
    rmSync(join(dataDir, "cache/oci"), { recursive: true });
  });

  it("takes nothing of what is being made, forked or restored meanwhile", async () => {
    const sandbox = await squashd.client.create({ id: "busy" });
    await print(sandbox, "echo 1 >/one");
    await sandbox.snapshot({ label: "one" });
    const over = new AbortController();
    const collecting = (async () => {
      let count = 0;
      for (; !over.signal.aborted; count++) await squashd.client.collect();
      return count;
    })();
    for (let round = 0; round < 6; round++) {
      const forks = await Promise.all([sandbox.fork({ count: 2 }), sandbox.fork({ from: "one" })]);
      await sandbox.snapshot({ label: `r${round}` });
      await sandbox.restore(`r${round}`);
      for (const fork of forks.flat()) expect(await print(fork, "cat /one")).toBe("1\n");
      await sandbox.deleteSnapshot(`r${round}`);
      await Promise.all(forks.flat().map((fork) => fork.destroy()));
    }
    over.abort();
    expect(await collecting).toBeGreaterThan(6);
    await sandbox.restore("one");
    expect(await print(sandbox, "cat /one")).toBe("1\n");
  });
});

describe.skipIf(lacks("root"))("the root directory", () => {
  it("has its attributes again after a restore", async (context) => {
    const sandbox = await squashd.client.create({ id: "x" });
    const at = (generation: number): string => join(squashd.dataDir, "sandboxes/x", `upper.${generation}/data`);
    const attributes = (directory: string): string =>
      execFileSync("getfattr", ["-h", "-d", "-m", "^(user|system)", "--absolute-names", directory], {
        encoding: "utf8",
      })
        .split("\n")
        .slice(1)
        .join("\n");
    try {
      execFileSync("setfattr", ["-n", "user.mark", "-v", "mine", at(0)], { stdio: "pipe" });
    } catch {
      context.skip("tmpfs has no attributes of users before Linux 6.6");
    }
    const wanted = attributes(at(0));
    expect(wanted).toContain("user.mark");
    await sandbox.snapshot({ label: "one" });
    await sandbox.restore("one");
    expect(attributes(at(1))).toBe(wanted);
  });
});
