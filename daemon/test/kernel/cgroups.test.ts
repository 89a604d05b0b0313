import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findCgroups, type CgroupLayout } from "../../src/kernel/cgroup.js";
import { lacks } from "../../../test/support/needs.js";
import { useKernel } from "./test-kernel.js";
import { mountBase, TestSandbox, unmountBase } from "./test-sandbox.js";

const mebibyte = 1_048_576;
const limits = { memoryBytes: 64 * mebibyte, cpuQuotaUs: 50_000, pids: 40 };

/** Files of the limits: index of the hierarchy in the layout, name, and what the limits above are in it. */
const limitFiles = {
  1: [
    [0, "memory.limit_in_bytes", String(64 * mebibyte)],
    [1, "cpu.cfs_quota_us", "50000"],
    [1, "cpu.cfs_period_us", "100000"],
    [2, "pids.max", "40"],
  ],
  2: [
    [0, "memory.max", String(64 * mebibyte)],
    [0, "cpu.max", "50000 100000"],
    [0, "pids.max", "40"],
  ],
} as const;
/** The same of limits that not every kernel has. */
const optionalFiles = {
  1: [
    ["memory.memsw.limit_in_bytes", String(64 * mebibyte)],
    ["memory.swappiness", "0"],
  ],
  2: [["memory.swap.max", "0"]],
} as const;

describe.skipIf(lacks("root"))("a cell's cgroup", () => {
  const machine = useKernel();
  let layout: CgroupLayout;

  beforeAll(async () => {
    layout = await findCgroups(readFileSync("/proc/self/mountinfo", "utf8"), machine.mark);
    await mountBase(machine);
  });
  afterAll(() => unmountBase(machine));

  const pathOf = (hierarchy: number, index: number, file: string): string =>
    join(layout.paths[hierarchy] ?? "", `c${index}`, file);
  const read = (hierarchy: number, index: number, file: string): string =>
    readFileSync(pathOf(hierarchy, index, file), "utf8").trim();

  function expectLimits(index: number): void {
    for (const [hierarchy, file, value] of limitFiles[layout.version])
      expect([file, read(hierarchy, index, file)]).toEqual([file, value]);
    for (const [file, value] of optionalFiles[layout.version]) {
      if (existsSync(pathOf(0, index, file))) expect([file, read(0, index, file)]).toEqual([file, value]);
    }
  }

  it("has its limits in every hierarchy, raised and lowered again", async () => {
    await machine.kernel.makeCell(0, { nestedUserns: false });
    await machine.kernel.limitCell(0, limits);
    expectLimits(0);
    await machine.kernel.limitCell(0, { memoryBytes: 512 * mebibyte, cpuQuotaUs: 200_000, pids: 100 });
    expect(read(0, 0, limitFiles[layout.version][0][1])).toBe(String(512 * mebibyte));
    await machine.kernel.limitCell(0, limits);
    expectLimits(0);
    await machine.kernel.killCell(0);
  });

  it("holds the cell's init and all that it starts", async () => {
    await using sandbox = await TestSandbox.make(machine, 1);
    await sandbox.run("sleep 1000 >/dev/null 2>&1 &");
    for (const hierarchy of layout.paths.keys()) {
      const members = (): string[] => read(hierarchy, 1, "cgroup.procs").split("\n");
      // the process that held the session is about to end
      await expect.poll(() => members().length).toBe(2);
      expect(members()).toContain(String(sandbox.pid));
    }
    expect(machine.kernel.cgroupPath(1)).toBe(pathOf(0, 1, "").replace(/\/$/, ""));
  });

  it("of a cell that does not exist cannot be limited or frozen, and uses nothing", async () => {
    await expect(machine.kernel.limitCell(99, limits)).rejects.toMatchObject({ details: { errno: "ENOENT" } });
    await expect(machine.kernel.freezeCell(99, true)).rejects.toMatchObject({ details: { errno: "ENOENT" } });
    expect(await machine.kernel.usage(99)).toEqual({ memoryBytes: 0, oomKills: 0 });
  });

  it("stops all processes when it is frozen, and lets them go on", async () => {
    await using sandbox = await TestSandbox.make(machine, 2);
    const count = join(sandbox.upper, "data/tmp/count");
    await sandbox.run("while :; do echo x >>/tmp/count; sleep 0.01; done >/dev/null 2>&1 &");
    const size = (): number => (existsSync(count) ? statSync(count).size : 0);
    await expect.poll(size).toBeGreaterThan(0);
    await machine.kernel.freezeCell(2, true);
    const frozen = size();
    await new Promise((done) => setTimeout(done, 300));
    expect(size()).toBe(frozen);
    await machine.kernel.freezeCell(2, true);
    await machine.kernel.freezeCell(2, false);
    await expect.poll(size).toBeGreaterThan(frozen);
    await machine.kernel.freezeCell(2, false);
  });

  it("that is frozen can be killed, with all that is in it", async () => {
    await using sandbox = await TestSandbox.make(machine, 3);
    await sandbox.run("for i in 1 2 3 4 5; do sleep 1000 >/dev/null 2>&1 & done");
    await machine.kernel.freezeCell(3, true);
    const group = machine.kernel.cgroupPath(3);
    await machine.kernel.killCell(3);
    expect(existsSync(group)).toBe(false);
  });

  it("counts memory, and what the kernel killed for lack of it", async () => {
    await using sandbox = await TestSandbox.make(machine, 4);
    await machine.kernel.limitCell(4, { ...limits, memoryBytes: 32 * mebibyte });
    await sandbox.run("head -c 4000000 /dev/zero >/tmp/file");
    const usage = await machine.kernel.usage(4);
    expect(usage.oomKills).toBe(0);
    expect(usage.memoryBytes).toBeGreaterThan(4_000_000);
    expect(usage.memoryBytes).toBeLessThanOrEqual(32 * mebibyte);
    const greedy = await sandbox.run("x=$(head -c 100000000 /dev/zero | tr '\\0' x)");
    expect(greedy.exitCode).toBe(137);
    expect((await machine.kernel.usage(4)).oomKills).toBeGreaterThan(0);
    expect(await sandbox.print("echo fine")).toBe("fine\n");
  });

  it("bounds the number of processes", async () => {
    await using sandbox = await TestSandbox.make(machine, 5);
    await machine.kernel.limitCell(5, { ...limits, pids: 10 });
    await sandbox.run("i=0; while [ $i -lt 30 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done");
    const pids = layout.version === 2 ? 0 : 2;
    expect(Number(read(pids, 5, "pids.current"))).toBeLessThanOrEqual(10);
    expect(Number(/^max (\d+)/m.exec(read(pids, 5, "pids.events"))?.[1])).toBeGreaterThan(0);
  });
});
