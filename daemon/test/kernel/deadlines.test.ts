import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LinuxKernel } from "../../src/kernel/kernel.js";
import { lacks } from "../../../test/support/needs.js";
import { patience } from "../../../test/support/patience.js";
import { probeProgram } from "../../../test/support/probe.js";
import { repositoryRoot } from "../../../test/support/root.js";
import type { KeeperOptions } from "./deadline-keeper.js";
import { usableFormat, useKernel } from "./test-kernel.js";
import { mountBase, TestSandbox, unmountBase } from "./test-sandbox.js";

const mebibyte = 1_048_576;
const past = { code: "kernel", details: { errno: "ETIME" } };

/** Descendants of a process, itself included, that are alive. */
function alive(pid: number): number[] {
  if (!existsSync(`/proc/${pid}/stat`) || / [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"))) return [];
  const tasks = readdirSync(`/proc/${pid}/task`);
  const children = tasks.flatMap((task) => readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" "));
  return [pid, ...children.filter((child) => child !== "").flatMap((child) => alive(Number(child)))];
}

describe.skipIf(lacks("root"))("the deadline of a cell", () => {
  const machine = useKernel();
  let base: string;
  beforeAll(async () => {
    base = await mountBase(machine);
  });
  afterAll(() => unmountBase(machine));

  const soon = (ms: number): number => machine.kernel.bootMs() + ms;
  const set = (index: number, ms: number): Promise<void> => machine.kernel.setDeadline(index, soon(ms));
  const noticed = (index: number): boolean => machine.deaths.some((death) => death.index === index);

  it("ends all that runs in it, and is heard of as any death", async () => {
    await using sandbox = await TestSandbox.make(machine, 0);
    const { pid } = sandbox;
    await sandbox.run("setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.05; done' >/dev/null 2>&1 &");
    // the kernel leaves some out of a list of children that changes while it is read
    await expect.poll(() => alive(pid).length).toBeGreaterThan(1);
    const family = alive(pid);
    await set(0, 300);
    await expect.poll(() => family.flatMap(alive)).toEqual([]);
    await expect.poll(() => machine.deaths.some((death) => death.pid === pid)).toBe(true);
  });

  it("does not strike early, can be put off again and again, and be taken away", async () => {
    await using sandbox = await TestSandbox.make(machine, 1);
    for (let turn = 0; turn < 6; turn++) {
      await set(1, 1_000);
      await sleep(300);
    }
    expect(await sandbox.print("echo alive")).toBe("alive\n");
    await machine.kernel.setDeadline(1, null);
    await sleep(1_200);
    expect(await sandbox.print("echo alive")).toBe("alive\n");
    expect(noticed(1)).toBe(false);
  });

  it("that is over already strikes at once, and one that has struck is final", async () => {
    await using sandbox = await TestSandbox.make(machine, 2);
    await machine.kernel.setDeadline(2, 1);
    await expect.poll(() => alive(sandbox.pid)).toEqual([]);
    await expect.poll(() => noticed(2)).toBe(true);
    await expect(set(2, 60_000)).rejects.toMatchObject({ details: { errno: "ESRCH" } });
  });

  it("is set while the cell is frozen, so that one that was put off is thawed as ever", async () => {
    await using sandbox = await TestSandbox.make(machine, 3);
    await set(3, 600);
    await machine.kernel.freezeCell(3, true);
    await set(3, 60_000);
    await sleep(700);
    await machine.kernel.freezeCell(3, false);
    expect(await sandbox.print("echo alive")).toBe("alive\n");
  });

  it("that passes while the cell is frozen ends it before anything in it runs again", async () => {
    await using sandbox = await TestSandbox.make(machine, 4);
    const { pid } = sandbox;
    const counter = join(sandbox.upper, "data/count");
    await sandbox.run("setsid sh -c 'while :; do echo x >>/count; done' >/dev/null 2>&1 &");
    await expect.poll(() => readIfThere(counter)).not.toBe(0);
    await machine.kernel.freezeCell(4, true);
    const size = readIfThere(counter);
    await set(4, 100);
    await sleep(200);
    expect(alive(pid).length).toBeGreaterThan(1);
    await expect(set(4, 60_000)).rejects.toMatchObject(past);
    await expect(machine.kernel.setDeadline(4, null)).rejects.toMatchObject(past);
    await expect(machine.kernel.freezeCell(4, false)).rejects.toMatchObject(past);
    await expect.poll(() => alive(pid)).toEqual([]);
    await expect.poll(() => noticed(4)).toBe(true);
    expect(readIfThere(counter)).toBe(size);
  });

  describe("with programs that do what they can against it", () => {
    beforeAll(async () => {
      const image = machine.pack("probe", usableFormat, (root) => {
        mkdirSync(join(root, "opt"));
        copyFileSync(probeProgram(), join(root, "opt/probe"));
      });
      await machine.kernel.mountLayer("probe", image, usableFormat);
    });
    afterAll(() => machine.kernel.unmountLayer("probe"));

    it("is out of their reach", async () => {
      await using sandbox = await TestSandbox.make(machine, 7, { layers: ["probe", base] });
      expect(await sandbox.print("/opt/probe pidfd-getfd 1 || true")).toMatch(/^refused/);
      expect((await sandbox.run("ls /proc/1/fd")).stderr.toString()).toMatch(/Permission denied/);
      expect(await sandbox.print("/opt/probe idle 1 || true")).toMatch(/^refused/);
      expect(await sandbox.print("/opt/probe idle $$ || true")).toMatch(/^escaped/);
      for (const all of ["-p 1", "-u root"])
        expect((await sandbox.run(`renice -n 19 ${all}`)).stderr.toString()).toMatch(/not permitted/);
      expect((await sandbox.run("renice -n 19 -p $$")).stderr.toString()).toBe("");
    });

    it.each([
      ["signals", "kill -STOP 1; kill -KILL 1; kill -TERM 1"],
      ["a limit of open files", "/opt/probe limit 1 7 0 0"],
      ["a low priority", "renice -n 19 -p 1; renice -n 19 -u root; /opt/probe idle 1; /opt/probe spin 100"],
    ])("strikes in spite of %s", async (_, hostile) => {
      await using sandbox = await TestSandbox.make(machine, 8, { layers: ["probe", base] });
      await machine.kernel.limitCell(8, { memoryBytes: 256 * mebibyte, cpuQuotaUs: 50_000, pids: 400 });
      await sandbox.run(hostile);
      expect(alive(sandbox.pid)).not.toEqual([]);
      await set(8, 500);
      const from = performance.now();
      await expect.poll(() => alive(sandbox.pid), { interval: 20 }).toEqual([]);
      expect(performance.now() - from).toBeLessThan(500 + 4_000 * patience);
    });
  });

  it("strikes while sq-host is stopped, whose late work puts nothing off", async () => {
    await using sandbox = await TestSandbox.make(machine, 5);
    const host = await machine.hostPid();
    await set(5, 700);
    process.kill(host, "SIGSTOP");
    try {
      const late = set(5, 60_000);
      await expect.poll(() => alive(sandbox.pid)).toEqual([]);
      process.kill(host, "SIGCONT");
      await expect(late).rejects.toMatchObject({ code: "kernel" });
    } finally {
      process.kill(host, "SIGCONT");
    }
    expect(noticed(5)).toBe(true);
  });

  it("is not counted from when sq-host comes to it", async () => {
    await using sandbox = await TestSandbox.make(machine, 6);
    const host = await machine.hostPid();
    process.kill(host, "SIGSTOP");
    const asked = performance.now();
    const done = set(6, 1_000);
    await sleep(700);
    process.kill(host, "SIGCONT");
    await done;
    await expect.poll(() => alive(sandbox.pid), { interval: 5 }).toEqual([]);
    expect(performance.now() - asked).toBeLessThan(1_600);
  });

  it.each(["SIGKILL", "SIGSTOP"] as const)("strikes when squashd and sq-host got a %s", async (signal) => {
    await using keeper = new Keeper({ deadlineMs: 1_500, everyMs: 300 });
    const { init, host } = await keeper.started();
    await sleep(2_000);
    expect(alive(init)).not.toEqual([]); // it was put off
    process.kill(host, "SIGSTOP");
    process.kill(keeper.pid, signal);
    await expect.poll(() => alive(init)).toEqual([]);
    process.kill(host, "SIGKILL");
  });

  /** A process that stands for squashd, with what belongs to it. */
  class Keeper implements AsyncDisposable {
    readonly #process: ChildProcess;
    readonly #options: KeeperOptions;

    constructor(more: Pick<KeeperOptions, "deadlineMs" | "everyMs">) {
      this.#options = {
        binary: join(repositoryRoot, "native/build/sq-host"),
        runDir: join(machine.home, "keeper-run"),
        dataDir: machine.dataDir,
        uidBase: machine.uidBase + 65_536 * 100,
        cgroupRoot: `${machine.mark}-keeper`,
        ...more,
      };
      const script = join(repositoryRoot, "build/test/daemon/test/kernel/deadline-keeper.js");
      this.#process = spawn(process.execPath, [script, JSON.stringify(this.#options)], {
        stdio: ["ignore", "pipe", "inherit"],
      });
    }

    get pid(): number {
      return this.#process.pid ?? 0;
    }

    async started(): Promise<{ readonly init: number; readonly host: number }> {
      if (this.#process.stdout === null) throw new Error("it has no output");
      const [line] = (await once(this.#process.stdout, "data")) as [Buffer];
      const [init = 0, host = 0] = line.toString().split(" ").map(Number);
      return { init, host };
    }

    async [Symbol.asyncDispose](): Promise<void> {
      if (this.#process.exitCode === null && this.#process.signalCode === null) {
        const ended = once(this.#process, "exit");
        this.#process.kill("SIGKILL");
        await ended;
      }
      const next = await LinuxKernel.start({ ...this.#options, subnet: null, hostRestarted: () => undefined });
      await next.killCell(0);
      await next.close({ forget: true });
    }
  }
});

function readIfThere(path: string): number {
  return existsSync(path) ? readFileSync(path).length : 0;
}
