import { mkdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { CreateOptions, Sandbox, SandboxInfo } from "@squash/sdk";
import { attack, control, createTarget, scratch } from "../../support/probe.js";
import { lacks } from "../../support/needs.js";
import { expectHealthy, useTarget } from "../../support/target.js";

const target = useTarget({ env: { SQUASH_UPPER_LIMIT_MB: "64" } });

/** Runs an attack in a sandbox of its own, which must go away completely, while the neighbour and squashd keep answering. */
async function besieged<T>(options: CreateOptions, work: (sandbox: Sandbox) => Promise<T>): Promise<T> {
  const { squashd, neighbour } = target;
  const sandbox = await createTarget(squashd.client, options);
  try {
    const done = new AbortController();
    const working = work(sandbox).finally(() => done.abort());
    const watching = (async () => {
      do {
        await expectHealthy(squashd, neighbour);
        await new Promise((resolve) => setTimeout(resolve, 50));
      } while (!done.signal.aborted);
    })();
    const [result] = await Promise.all([working, watching]);
    return result;
  } finally {
    await sandbox.destroy({ deadlineMs: 20_000 });
  }
}

/** Tries a command until it works, as a sandbox without memory may lose its init, and returns the sandbox's state. */
async function usable(sandbox: Sandbox, argv: readonly string[]): Promise<SandboxInfo> {
  const status = async (): Promise<unknown> => (await sandbox.exec(argv).catch(() => null))?.exit_code;
  await expect.poll(status, { timeout: 10_000 }).toBe(0);
  const info = await sandbox.info();
  expect(info.oom_kills).toBeGreaterThan(0);
  if (info.restarts > 0) expect(info.reason).toMatch(/for lack of memory/);
  return info;
}

/** Memory of the daemon. */
function residentBytes(): number {
  const status = readFileSync(`/proc/${target.squashd.pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

describe.skipIf(lacks("root"))("a sandbox that makes too many processes", () => {
  it("is stopped at its limit, and can be used again", async () => {
    await besieged({ pids: 64 }, async (sandbox) => {
      expect(await attack(sandbox, "processes 200")).toBe("refused: EAGAIN");
      expect(await sandbox.exec("echo again")).toMatchObject({ stdout: "again\n" });
    });
    expect(control("processes 200")).toMatch(/^escaped: /);
  });

  it("is stopped by the deadline of the command that is a fork bomb", async () => {
    await besieged({ pids: 128, cpu: 0.5 }, async (sandbox) => {
      expect(await sandbox.exec(["/opt/probe", "bomb"], { timeout: 1 })).toMatchObject({
        exit_code: 124,
        timed_out: true,
      });
      expect(await sandbox.exec("ps -o comm | grep -c probe")).toMatchObject({ stdout: "0\n" });
    });
  });

  it("says so when a fork bomb in the background leaves no room, and can be destroyed", async () => {
    await besieged({ pids: 64, cpu: 0.5 }, async (sandbox) => {
      await sandbox.exec("(/opt/probe bomb &) >/dev/null 2>&1");
      await new Promise((resolve) => setTimeout(resolve, 500));
      const results = await Promise.allSettled(Array.from({ length: 4 }, () => sandbox.exec("true", { timeout: 2 })));
      for (const result of results) {
        if (result.status === "fulfilled") expect(result.value.exit_code).toBeGreaterThanOrEqual(0);
        else expect(result.reason).toMatchObject({ code: "exec_failed" });
      }
    });
  });

  it("may leave zombies and orphans: they are reaped", async () => {
    await besieged({ pids: 256 }, async (sandbox) => {
      expect(await attack(sandbox, "zombies 1000")).toBe("refused: EAGAIN");
      expect(await attack(sandbox, "orphans 1000")).toMatch(/^escaped: /);
      await expect.poll(async () => (await sandbox.exec("ps -o stat | grep -c Z")).stdout).toBe("0\n");
      expect(await attack(sandbox, "processes 200")).toMatch(/^escaped: /);
    });
    expect(control("zombies 1000")).toMatch(/^escaped: /);
  });
});

describe.skipIf(lacks("root"))("a sandbox that takes too much memory", () => {
  it("has its process killed, is told so, and goes on", async () => {
    await besieged({ memory_mb: 32 }, async (sandbox) => {
      expect(await attack(sandbox, "memory 64")).toBe("killed: out of memory");
      expect(await sandbox.exec("echo again")).toMatchObject({ stdout: "again\n" });
      expect((await sandbox.info()).oom_kills).toBeGreaterThan(0);
    });
    expect(control("memory 64")).toMatch(/^escaped: /);
  });

  it("is preferred as a victim, and cannot have itself spared", async () => {
    const { stdout, stderr } = await target.sandbox.exec(
      "cat /proc/self/oom_score_adj /proc/1/oom_score_adj; echo -1 > /proc/$$/oom_score_adj",
    );
    expect(stdout).toBe("500\n0\n");
    expect(stderr).toContain("Permission denied");
  });

  it("as many processes at once lives, or is rebuilt", async () => {
    await besieged({ memory_mb: 32, pids: 64 }, async (sandbox) => {
      await sandbox.exec("for i in $(seq 40); do /opt/probe memory 16 & done; wait", { timeout: 15 }).catch(() => null);
      await expect.poll(async () => (await sandbox.info()).state, { timeout: 10_000 }).toBe("ready");
      expect(await sandbox.exec("echo again")).toMatchObject({ stdout: "again\n" });
      expect((await sandbox.info()).oom_kills).toBeGreaterThan(0);
    });
  });

  it.each(["/dev/shm/file", "/tmp/file"])("in files at %s is stopped as well", async (path) => {
    await besieged({ memory_mb: 24 }, async (sandbox) => {
      expect(await attack(sandbox, `fill ${path} 60`)).toBe("killed: out of memory");
      await expect(usable(sandbox, ["rm", "-f", path])).resolves.toMatchObject({ state: "ready" });
    });
  });

  it("in open files is stopped as well", async () => {
    await besieged({ memory_mb: 32, pids: 64 }, async (sandbox) => {
      expect(await attack(sandbox, "open-files 15000 20")).toMatch(/^killed: out of memory$|^refused: ENOMEM$/);
      await expect(usable(sandbox, ["true"])).resolves.toMatchObject({ state: "ready" });
    });
    expect(control("open-files 15000 20")).toMatch(/^escaped: /);
  });
});

describe.skipIf(lacks("root"))("a sandbox that takes the processor", () => {
  /** Seconds of the processor that two seconds of work got. */
  async function used(sandbox: Sandbox): Promise<number> {
    const { stdout } = await sandbox.exec("timeout 2 sh -c 'while :; do :; done'; times", { timeout: 30 });
    const [, minutes, seconds] = /^(\d+)m([\d.]+)s/.exec(stdout.split("\n")[1] ?? "") ?? [];
    return Number(minutes) * 60 + Number(seconds);
  }

  it("gets the share that it was given", async () => {
    await besieged({ cpu: 0.1 }, async (sandbox) => {
      expect(await used(sandbox)).toBeLessThan(0.5);
    });
    expect(await used(target.neighbour)).toBeGreaterThan(0.5);
  });
});

describe.skipIf(lacks("root"))("a sandbox that fills its disk", () => {
  it("is told that there is no space", async () => {
    using folder = scratch();
    await besieged({}, async (sandbox) => {
      expect(await attack(sandbox, "fill /big 80")).toBe("refused: ENOSPC");
      expect(await sandbox.exec("rm /big; echo ok > /x; cat /x")).toMatchObject({ stdout: "ok\n" });
    });
    expect(control(`fill ${folder.path}/big 80`)).toMatch(/^escaped: /);
  });

  it("is told that there are no inodes", async () => {
    using folder = scratch();
    await besieged({}, async (sandbox) => {
      await sandbox.exec("mkdir /many");
      expect(await attack(sandbox, "files /many 70000")).toBe("refused: ENOSPC");
      expect(await sandbox.exec("cat /etc/hostname")).toMatchObject({ exit_code: 0 });
    });
    mkdirSync(`${folder.path}/many`);
    expect(control(`files ${folder.path}/many 70000`)).toMatch(/^escaped: /);
  });
});

describe.skipIf(lacks("root"))("a sandbox that floods its output", () => {
  it("has the first part kept and the rest thrown away", async () => {
    await besieged({}, async (sandbox) => {
      const result = await sandbox.exec("yes & yes >&2", { timeout: 2 });
      expect(result).toMatchObject({ exit_code: 124, stdout_truncated: true, stderr_truncated: true });
      expect([result.stdout.length, result.stderr.length]).toEqual([65_536, 65_536]);
    });
  });

  it("keeps nobody from answering, however many commands do so", async () => {
    const before = residentBytes();
    await besieged({ cpu: 0.5 }, async (sandbox) => {
      await Promise.all(Array.from({ length: 20 }, () => sandbox.exec("yes & yes >&2", { timeout: 1 })));
      expect((await sandbox.logs()).length).toBe(20);
    });
    expect(residentBytes() - before).toBeLessThan(200 * 1_048_576);
  });
});
