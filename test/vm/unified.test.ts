import { spawnSync } from "node:child_process";
import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, rmdirSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { DoctorCheck } from "@squash/sdk/protocol";
import type { Sandbox } from "@squash/sdk";
import { hostState, settledState, type HostState } from "../support/leaks.js";
import { trustByHand } from "../support/modules.js";
import { lacks } from "../support/needs.js";
import { repositoryRoot } from "../support/root.js";
import { TestSquashd } from "../support/squashd.js";

// What is peculiar to control groups of version 2 and to older kernels: for a machine that has nothing else, such as the virtual one.
const unified = "/sys/fs/cgroup";
const isUnified = existsSync(join(unified, "cgroup.controllers"));
const squashdProgram = join(repositoryRoot, "daemon/dist/main.js");

const squashd = new TestSquashd();
const marks = [squashd.mark];
let before: HostState;

/** The sandbox's group, as the kernel names it. */
async function groupOf(sandbox: Sandbox): Promise<string> {
  const { pid } = await sandbox.info();
  return join(unified, readFileSync(`/proc/${pid}/cgroup`, "utf8").trim().replace("0::", ""));
}

function readGroup(group: string, file: string): string {
  return readFileSync(join(group, file), "utf8").trim();
}

describe.skipIf(lacks("root") || !isUnified)("with version 2 only", () => {
  beforeAll(async () => {
    before = hostState(marks);
    await squashd.start();
  });
  afterEach(async () => {
    for (const { id } of await squashd.client.list()) await squashd.client.sandbox(id).destroy();
  });
  afterAll(async () => {
    await squashd[Symbol.asyncDispose]();
    expect(await settledState(before, marks)).toEqual(before);
  });

  it("the doctor finds all that is required", () => {
    const env = { PATH: process.env["PATH"] ?? "", SQUASH_DATA_DIR: squashd.dataDir, SQUASH_RUN_DIR: squashd.runDir };
    const { stdout } = spawnSync(process.execPath, [squashdProgram, "doctor", "--json"], { env, encoding: "utf8" });
    const checks = JSON.parse(stdout) as DoctorCheck[];
    expect(checks.filter(({ ok, required }) => required && !ok)).toEqual([]);
    expect(checks.find(({ name }) => name === "cgroups")?.detail).toBe(
      "version 2 with memory, cpu, pids, below /sys/fs/cgroup/squash",
    );
    expect(checks.find(({ name }) => name === "base module")?.detail).toBe("000-base-test (erofs)");
  });

  it("a sandbox has a group of its own with its limits, and sees it as the root", async () => {
    const sandbox = await squashd.client.create({ memory_mb: 64, pids: 40, cpu: 0.5 });
    const group = await groupOf(sandbox);
    expect(group).toMatch(new RegExp(`^${unified}/${squashd.mark}/c\\d+$`));
    expect(readGroup(group, "memory.max")).toBe(String(64 * 1_048_576));
    expect(readGroup(group, "pids.max")).toBe("40");
    expect(readGroup(group, "cpu.max")).toBe("50000 100000");
    if (existsSync(join(group, "memory.swap.max"))) expect(readGroup(group, "memory.swap.max")).toBe("0");
    expect((await sandbox.exec("cat /proc/self/cgroup")).stdout).toBe("0::/\n");
    expect((await sandbox.info()).cgroup).toBe(group);
  });

  it("the limit of processes holds, and only in the sandbox that reaches it", async () => {
    const sandbox = await squashd.client.create({ pids: 30 });
    const other = await squashd.client.create();
    const group = await groupOf(sandbox);
    await sandbox.exec("i=0; while [ $i -lt 60 ]; do sleep 30 & i=$((i+1)); done", { timeout: 60 });
    expect(Number(/^max (\d+)$/m.exec(readGroup(group, "pids.events"))?.[1])).toBeGreaterThan(0);
    expect(Number(readGroup(group, "pids.current"))).toBeLessThanOrEqual(30);
    expect((await other.exec("echo fine")).stdout).toBe("fine\n");
  });

  it("the limit of processor time holds", async () => {
    const sandbox = await squashd.client.create({ cpu: 0.2 });
    await sandbox.exec("timeout 3 sh -c 'while :; do :; done'");
    const stat = readGroup(await groupOf(sandbox), "cpu.stat");
    expect(Number(/^nr_throttled (\d+)$/m.exec(stat)?.[1])).toBeGreaterThan(5);
  });

  it("the limit of memory kills what exceeds it, not the sandbox", async () => {
    const sandbox = await squashd.client.create({ memory_mb: 32 });
    const { pid } = await sandbox.info();
    const greedy = await sandbox.exec(["sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' x)"]);
    expect(greedy).toMatchObject({ exit_code: 137, oom_killed: true });
    expect((await sandbox.exec("echo fine")).stdout).toBe("fine\n");
    expect(await sandbox.info()).toMatchObject({ state: "ready", pid, restarts: 0 });
  });

  it("a frozen sandbox can be destroyed", async () => {
    const sandbox = await squashd.client.create({ id: "frozen" });
    await sandbox.exec("sleep 1000 >/dev/null 2>&1 &");
    const group = await groupOf(sandbox);
    writeFileSync(join(group, "cgroup.freeze"), "1");
    await expect.poll(() => readGroup(group, "cgroup.events")).toContain("frozen 1");
    await sandbox.destroy();
    expect(existsSync(group)).toBe(false);
  });

  it("kill -9 of squashd leaves group, limits and processes to the next one", async () => {
    const sandbox = await squashd.client.create({ id: "adopted", memory_mb: 64 });
    await sandbox.exec("sleep 1000 >/dev/null 2>&1 &");
    const { pid } = await sandbox.info();
    const group = await groupOf(sandbox);
    await squashd.end("SIGKILL");
    await squashd.start();
    expect(await sandbox.info()).toMatchObject({ state: "ready", pid, exec_count: 1, restarts: 0 });
    expect(await groupOf(sandbox)).toBe(group);
    expect(readGroup(group, "memory.max")).toBe(String(64 * 1_048_576));
    expect((await sandbox.exec("ps -o comm | grep -c '^sleep'")).stdout).toBe("1\n");
    await sandbox.destroy();
    expect(existsSync(group)).toBe(false);
  });

  it("a module whose image this kernel cannot use is refused with what to do", async () => {
    const folder = join(squashd.dataDir, "modules");
    linkSync(join(folder, "100-extra.squashfs"), join(folder, "300-exchanged.squashfs"));
    trustByHand(folder, "300-exchanged");
    const creating = squashd.client.create({ layers: ["000-base-test", "300-exchanged"] });
    try {
      if (/^6\.[01]\./.test(release())) {
        await expect(creating).rejects.toMatchObject({
          code: "module_invalid",
          message: /"300-exchanged": this kernel needs an image of the format erofs; make one/,
        });
      } else {
        expect((await (await creating).exec("cat /opt/extra/file")).exit_code).toBe(0);
      }
    } finally {
      for (const file of ["300-exchanged.squashfs", "300-exchanged.manifest.json"]) rmSync(join(folder, file));
    }
  });

  it("in a container, whose group holds processes, squashd says why it cannot start", () => {
    const group = join(unified, `${squashd.mark}-box`);
    mkdirSync(group);
    const enter = 'echo 0 >"$1/cgroup.procs" && exec /usr/bin/unshare --cgroup --mount sh -c "$2"';
    const remount = `umount ${unified} && mount -t cgroup2 box ${unified} && exec "${process.execPath}" "${squashdProgram}"`;
    const env = {
      PATH: process.env["PATH"] ?? "",
      SQUASH_DATA_DIR: join(squashd.home, "box-data"),
      SQUASH_RUN_DIR: join(squashd.home, "box-run"),
      SQUASH_LISTEN: `unix:${squashd.home}/box.sock`,
    };
    try {
      const { status, stderr } = spawnSync("sh", ["-c", enter, "sh", group, remount], {
        env,
        encoding: "utf8",
        timeout: 120_000,
      });
      expect(stderr).toMatch(
        /Cannot hand memory, cpu and pids to the groups below "\/sys\/fs\/cgroup": .*a group that holds processes cannot/,
      );
      expect(status).toBe(1);
    } finally {
      rmdirSync(group);
    }
  });
});
