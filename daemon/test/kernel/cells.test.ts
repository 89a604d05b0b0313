import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, readlinkSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { lacks } from "../../../test/support/needs.js";
import { TestKernel, useKernel } from "./test-kernel.js";

const plain = { nestedUserns: false };
/** chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot, setfcap */
const keptCapabilities = "00000000800405fb";

/** Fields of /proc/PID/status. */
function statusOf(pid: number): Record<string, string> {
  const lines = readFileSync(`/proc/${pid}/status`, "utf8").trim().split("\n");
  return Object.fromEntries(lines.map((line) => line.split(/:\s*/, 2) as [string, string]));
}

function namespaceOf(pid: number | "self", kind: string): string {
  return readlinkSync(`/proc/${pid}/ns/${kind}`);
}

describe.skipIf(lacks("root"))("a cell", () => {
  const machine = useKernel();

  it("is in none of the host's namespaces, nor in another cell's", async () => {
    const { kernel } = machine;
    const { pid } = await kernel.makeCell(0, plain);
    const other = await kernel.makeCell(1, plain);
    for (const kind of ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"]) {
      const three = [pid, other.pid, "self" as const].map((process) => namespaceOf(process, kind));
      expect([kind, new Set(three).size]).toEqual([kind, 3]);
    }
    await kernel.killCell(0);
    await kernel.killCell(1);
  });

  it("is nobody outside, cannot regain rights, and is filtered", async () => {
    const { pid } = await machine.kernel.makeCell(3, plain);
    const uid = machine.uidBase + 3 * 65_536;
    const map = readFileSync(`/proc/${pid}/uid_map`, "utf8").trim().split(/\s+/).map(Number);
    expect(map).toEqual([0, uid, 65_536]);
    expect(readFileSync(`/proc/${pid}/gid_map`, "utf8").trim().split(/\s+/).map(Number)).toEqual(map);
    expect(statusOf(pid)).toMatchObject({
      Name: "sq-init",
      Uid: [uid, uid, uid, uid].join("\t"),
      Gid: [uid, uid, uid, uid].join("\t"),
      Groups: "",
      CapInh: "0000000000000000",
      CapPrm: keptCapabilities,
      CapEff: keptCapabilities,
      CapBnd: keptCapabilities,
      CapAmb: "0000000000000000",
      NoNewPrivs: "1",
      Seccomp: "2",
    });
    expect(Number(readFileSync(`/proc/${pid}/oom_score_adj`, "utf8"))).toBe(0);
    await machine.kernel.killCell(3);
  });

  it("holds no descriptor of the host, and no file of it", async () => {
    const { pid } = await machine.kernel.makeCell(4, plain);
    const descriptors = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    expect(descriptors.filter((target) => !/^(\/dev\/null|\/proc|socket:.*|anon_inode:.*)$/.test(target))).toEqual([]);
    expect(readFileSync(`/proc/${pid}/mountinfo`, "utf8")).not.toContain(machine.mark);
    expect(readdirSync(`/proc/${pid}/root`).toSorted()).toEqual(["dev", "proc", "sys"]);
    await machine.kernel.killCell(4);
  });

  it("with room for nested user namespaces has the same rights otherwise", async () => {
    const { pid } = await machine.kernel.makeCell(5, { nestedUserns: true });
    expect(statusOf(pid)).toMatchObject({ CapEff: keptCapabilities, NoNewPrivs: "1", Seccomp: "2" });
    await machine.kernel.killCell(5);
  });

  it("keeps its number for itself", async () => {
    const { kernel } = machine;
    const tries = await Promise.allSettled([1, 2, 3, 4].map(() => kernel.makeCell(6, plain)));
    expect(tries.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected", "rejected", "rejected"]);
    await expect(kernel.makeCell(6, plain)).rejects.toMatchObject({ code: "kernel", details: { errno: "EEXIST" } });
    expect(await kernel.cellsInCgroups()).toEqual([6]);
    await kernel.killCell(6);
  });

  it("with a number beyond all is refused", async () => {
    await expect(machine.kernel.makeCell(16_384, plain)).rejects.toMatchObject({ details: { errno: "EBADMSG" } });
    await expect(machine.kernel.killCell(16_384)).rejects.toMatchObject({ details: { errno: "EBADMSG" } });
  });

  it("whose init is killed is told of, and its number is free again", async () => {
    const { kernel, deaths } = machine;
    const { pid } = await kernel.makeCell(7, plain);
    process.kill(pid, "SIGKILL");
    await expect.poll(() => deaths).toContainEqual({ index: 7, pid });
    const again = await kernel.makeCell(7, plain).catch((error: unknown) => error);
    expect(again).toMatchObject({ details: { errno: "EEXIST" } }); // its groups are there until it is killed
    await kernel.killCell(7);
    const next = await kernel.makeCell(7, plain);
    expect(next.pid).not.toBe(pid);
    await kernel.killCell(7);
    expect(deaths).toHaveLength(1);
  });

  it("can be killed any number of times, and when there was none", async () => {
    await machine.kernel.makeCell(8, plain);
    for (let times = 0; times < 3; times++) await machine.kernel.killCell(8);
    await machine.kernel.killCell(9);
  });

  it("is made many times at once", async () => {
    const numbers = Array.from({ length: 20 }, (_, index) => 20 + index);
    const made = await Promise.all(numbers.map((index) => machine.kernel.makeCell(index, plain)));
    expect(new Set(made.map(({ pid }) => pid)).size).toBe(20);
    expect(await machine.kernel.cellsInCgroups()).toEqual(numbers);
    await Promise.all(numbers.map((index) => machine.kernel.killCell(index)));
  });
});

describe.skipIf(lacks("root"))("a cell that cannot be made", () => {
  const machine = useKernel();

  it("leaves nothing when its group exists, whoever may be in there", async () => {
    const { kernel } = machine;
    const group = kernel.cgroupPath(1);
    mkdirSync(group);
    const stranger = spawn("sleep", ["1000"], { stdio: "ignore" });
    const ended = new Promise((done) => stranger.once("exit", (_, signal) => done(signal)));
    writeFileSync(join(group, "cgroup.procs"), String(stranger.pid));
    await expect(kernel.makeCell(1, plain)).rejects.toMatchObject({ code: "kernel", details: { errno: "EEXIST" } });
    await kernel.killCell(1); // as Cells does after every failure
    expect(await ended).toBe("SIGKILL");
    await kernel.makeCell(1, plain);
    await kernel.killCell(1);
  });

  it("leaves nothing when there is a directory where its socket belongs", async () => {
    const { kernel, runDir } = machine;
    const path = join(runDir, "cells/2.sock");
    mkdirSync(path);
    await expect(kernel.makeCell(2, plain)).rejects.toMatchObject({ details: { step: /remove old socket/ } });
    expect(await kernel.cellsInCgroups()).toEqual([]);
    rmdirSync(path);
    await kernel.makeCell(2, plain);
    await kernel.killCell(2);
  });

  it("leaves nothing when the run directory is full", async () => {
    const small = new TestKernel();
    execFileSync("mount", ["-t", "tmpfs", "-o", "nr_inodes=9", small.mark, small.runDir]);
    try {
      await small.start();
      const before = await small.state();
      const results: unknown[] = [];
      for (let index = 0; index < 9; index++) {
        results.push(await small.kernel.makeCell(index, plain).catch((error: unknown) => error));
      }
      expect(results[0]).toMatchObject({ pid: expect.any(Number) as number });
      expect(results.at(-1)).toMatchObject({ code: "kernel", details: { errno: "ENOSPC", step: /listen at/ } });
      const made = results.filter((result) => !(result instanceof Error)).length;
      expect(await small.kernel.cellsInCgroups()).toHaveLength(made);
      for (let index = 0; index < 9; index++) await small.kernel.killCell(index);
      expect(await small.settled(before)).toEqual(before);
      await small.stop({ forget: true });
    } finally {
      execFileSync("umount", ["-l", small.runDir]);
    }
    small.remove();
  });
});

describe.skipIf(lacks("root"))("sq-host", () => {
  const machine = useKernel();

  it("that was ended leaves cells to the next one, which adopts and watches them", async () => {
    const cell = await machine.kernel.makeCell(1, plain);
    const dead = await machine.kernel.makeCell(2, plain);
    await machine.stop();
    process.kill(dead.pid, "SIGKILL");
    await machine.start();
    const { kernel, deaths } = machine;
    expect(await kernel.cellsInCgroups()).toEqual([1, 2]);
    expect(await kernel.adoptCell(1, cell)).toBe(true);
    expect(await kernel.adoptCell(2, dead)).toBe(false);
    await expect(kernel.adoptCell(1, cell)).rejects.toMatchObject({ details: { errno: "EEXIST" } });
    expect(statSync(join(machine.runDir, "cells/1.sock")).isSocket()).toBe(true);
    process.kill(cell.pid, "SIGKILL");
    await expect.poll(() => deaths).toEqual([{ index: 1, pid: cell.pid }]);
    await kernel.killCell(1);
    await kernel.killCell(2);
  });

  it("takes no other process for a cell's init", async () => {
    const { kernel } = machine;
    const cell = await kernel.makeCell(3, plain);
    await machine.stop();
    await machine.start();
    expect(await machine.kernel.adoptCell(3, { pid: process.pid, startTime: cell.startTime })).toBe(false);
    expect(await machine.kernel.adoptCell(3, { ...cell, startTime: cell.startTime + 1n })).toBe(false);
    expect(await machine.kernel.adoptCell(3, { pid: 0x3fffffff, startTime: 1n })).toBe(false);
    expect(await machine.kernel.adoptCell(3, cell)).toBe(true);
    await machine.kernel.killCell(3);
  });

  it("that is killed is started again with the cells that there are", async () => {
    const { kernel, deaths, restarts } = machine;
    deaths.length = 0;
    const cell = await kernel.makeCell(4, plain);
    const dying = await kernel.makeCell(5, plain);
    const first = await machine.hostPid();
    process.kill(first, "SIGKILL");
    process.kill(dying.pid, "SIGKILL"); // while nobody watches
    await expect.poll(() => restarts.length).toBe(1);
    expect(restarts[0]).toMatch(/SIGKILL|link/);
    expect(await machine.hostPid()).not.toBe(first);
    await expect.poll(() => deaths).toEqual([{ index: 5, pid: dying.pid }]);
    await expect(kernel.makeCell(4, plain)).rejects.toMatchObject({ details: { errno: "EEXIST" } });
    expect(readFileSync(`/proc/${cell.pid}/comm`, "utf8")).toBe("sq-init\n");
    await kernel.killCell(4);
    await kernel.killCell(5);
  });

  it.each([0, 1, 3, 10])(
    "killed %i ms into its work fails what it was doing, and leaves nothing that stays",
    async (ms) => {
      const { kernel } = machine;
      const numbers = [10, 11, 12, 13, 14, 15];
      const pid = await machine.hostPid();
      const making = Promise.allSettled(numbers.map((index) => kernel.makeCell(index, plain)));
      await new Promise((done) => setTimeout(done, ms));
      process.kill(pid, "SIGKILL");
      for (const result of await making) {
        if (result.status === "rejected")
          expect(result.reason).toMatchObject({ code: "kernel", message: /SIGKILL|gone|link/ });
      }
      await Promise.all(numbers.map((index) => kernel.killCell(index)));
      expect(await kernel.cellsInCgroups()).toEqual([]);
      await Promise.all(numbers.map((index) => kernel.makeCell(index, plain)));
      await Promise.all(numbers.map((index) => kernel.killCell(index)));
    },
  );
});
