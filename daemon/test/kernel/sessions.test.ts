import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { runSession } from "../../src/kernel/session.js";
import { filesInside } from "../../../test/support/file-limit.js";
import { lacks } from "../../../test/support/needs.js";
import { patience } from "../../../test/support/patience.js";
import { commandOf, useKernel } from "./test-kernel.js";
import { mountBase, TestSandbox, unmountBase } from "./test-sandbox.js";

describe.skipIf(lacks("root"))("a session with a cell's init", () => {
  const machine = useKernel();
  let sandbox: TestSandbox;
  const socket = (): string => join(machine.runDir, "cells/0.sock");
  const never = new AbortController().signal;
  /** how often what may go wrong now and then is tried; seldom where it is done for another kernel's sake, on a slow machine */
  const often = (times: number): number => Math.ceil(times / (patience > 1 ? 5 : 1));

  // one sandbox for all: that the tests leave no process in it is part of what each must leave as it was
  beforeAll(async () => {
    await mountBase(machine);
    sandbox = await TestSandbox.make(machine, 0);
  });
  afterAll(async () => {
    await sandbox[Symbol.asyncDispose]();
    await unmountBase(machine);
  });

  // those that wait for a next command would do so for a second, in which all that a test has left looks like it
  afterEach(() => {
    for (const pid of readFileSync(join(machine.kernel.cgroupPath(0), "cgroup.procs"), "utf8")
      .trim()
      .split("\n"))
      endIfResting(pid);
  });

  const run = (...of: Parameters<typeof commandOf>) => runSession(socket(), commandOf(...of), never);

  /** Words of the commands that run in the cell, without init. */
  const running = (): string[] =>
    readFileSync(join(machine.kernel.cgroupPath(0), "cgroup.procs"), "utf8")
      .trim()
      .split("\n")
      .filter((pid) => pid !== String(sandbox.pid))
      .map((pid) =>
        existsSync(`/proc/${pid}/cmdline`) ? readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ") : "",
      );

  it("gives both outputs apart, byte for byte, and the exit code", async () => {
    const result = await run("printf 'out\\0\\377'; echo err >&2; exit 7");
    expect(result).toEqual({
      exitCode: 7,
      stdout: Buffer.from([0x6f, 0x75, 0x74, 0, 0xff]),
      stderr: Buffer.from("err\n"),
      stdoutTruncated: false,
      stderrTruncated: false,
      timedOut: false,
      cancelled: false,
    });
  });

  it.each([
    ["exit 0", 0],
    ["exit 255", 255],
    ["kill -9 $$", 137],
    ["kill -15 $$", 143],
    ["no-such-program", 127],
  ])("tells how %s ended", async (script, code) => {
    expect((await run(script)).exitCode).toBe(code);
  });

  it("gives arguments as they are, without a shell", async () => {
    const argv = ["printf", "%s|", "a b", "$HOME", "", "ü", "'\""];
    expect((await run("", { argv, shell: false })).stdout.toString()).toBe("a b|$HOME||ü|'\"|");
  });

  it("fails for a program, a user or a directory that is not there", async () => {
    await expect(run("", { argv: ["/absent"], shell: false })).resolves.toMatchObject({ exitCode: 127 });
    await expect(run("", { argv: ["/etc/passwd"], shell: false })).resolves.toMatchObject({ exitCode: 126 });
    for (const more of [{ user: "absent" }, { workdir: "/absent" }]) {
      const { exitCode, stderr } = await run("echo ran >&2", more);
      expect(exitCode).toBe(125);
      expect(stderr.toString()).toMatch(/absent/);
    }
  });

  it("takes a user, a directory and an environment", async () => {
    const more = { user: "user", workdir: "/tmp", env: { NAME: "a value\nof two lines" } };
    expect((await run('id -u; id -G; pwd; echo "$NAME"', more)).stdout.toString()).toBe(
      "1000\n1000 2000\n/tmp\na value\nof two lines\n",
    );
  });

  it("is confined as its init is", async () => {
    const fields = "CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp";
    const { stdout } = await run(`grep -E '^(${fields}):' /proc/self/status | tr -d '\\t\\n'`);
    const kept = "00000000800405fb";
    expect(stdout.toString()).toBe(
      `CapPrm:${kept}CapEff:${kept}CapBnd:${kept}CapAmb:0000000000000000NoNewPrivs:1Seccomp:2`,
    );
  });

  it("feeds standard input, large and none", async () => {
    const stdin = "0123456789abcdef".repeat(65_536);
    expect((await run("wc -c; cat", { stdin })).stdout.toString()).toBe("1048576\n");
    expect((await run("cat; echo end", { stdin: "" })).stdout.toString()).toBe("end\n");
  });

  it("ends well when the command does not read all of its standard input", async () => {
    const stdin = "0123456789abcdef".repeat(65_536);
    for (let times = 0; times < often(20); times++) {
      expect((await run("head -c 4", { stdin })).stdout.toString()).toBe("0123");
      expect((await run("exit 3", { stdin })).exitCode).toBe(3);
    }
  });

  it("keeps as much output as was asked for, and drains the rest", async () => {
    const result = await run("head -c 1000000 /dev/zero | tr '\\0' x; echo short >&2; echo done >/tmp/drained", {
      outputLimit: 1_000,
    });
    expect(result).toMatchObject({ exitCode: 0, stdoutTruncated: true, stderrTruncated: false });
    expect(result.stdout.toString()).toBe("x".repeat(1_000));
    expect(result.stderr.toString()).toBe("short\n");
    const exact = await run("printf 12345; printf 123456 >&2", { outputLimit: 5 });
    expect(exact).toMatchObject({ stdoutTruncated: false, stderrTruncated: true });
    expect(existsSync(join(sandbox.upper, "data/tmp/drained"))).toBe(true);
  });

  it("ends the whole tree at its time limit, and gives what there was", async () => {
    const script = "echo begun; (setsid sleep 1001 &) ; sleep 1002 & trap '' TERM; sleep 1003; sleep 1004";
    const result = await run(script, { timeoutMs: 700 });
    expect(result).toMatchObject({ timedOut: true, cancelled: false, exitCode: 124 });
    expect(result.stdout.toString()).toBe("begun\n");
    await expect.poll(running).toEqual([]);
  });

  it("ends the whole tree when it is cancelled", async () => {
    const stop = new AbortController();
    const script = "echo begun; (setsid sleep 1001 &) ; sleep 1002 & trap '' TERM; sleep 1003; sleep 1004";
    const ending = runSession(socket(), commandOf(script), stop.signal);
    await expect.poll(() => running().filter((line) => line.startsWith("sleep 100")).length).toBe(3);
    stop.abort();
    expect(await ending).toMatchObject({ cancelled: true, timedOut: false });
    await expect.poll(running).toEqual([]);
  });

  it("is refused when its caller has gone before it began", async () => {
    await expect(runSession(socket(), commandOf("touch /tmp/ran"), AbortSignal.abort())).rejects.toMatchObject({
      code: "cancelled",
    });
    expect(existsSync(join(sandbox.upper, "data/tmp/ran"))).toBe(false);
  });

  it(`is held ${often(100)} times at once, each with its own`, async () => {
    const results = await Promise.all(
      Array.from({ length: often(100) }, (_, index) =>
        run(`cat; echo ${index} >&2; exit ${index}`, { stdin: `input ${index}` }),
      ),
    );
    expect(results.map(({ exitCode, stdout, stderr }) => [exitCode, String(stdout), String(stderr)])).toEqual(
      Array.from({ length: often(100) }, (_, index) => [index, `input ${index}`, `${index}\n`]),
    );
    await expect.poll(running).toEqual([]);
  });

  it("leaves what runs in the background, which goes with the cell", async () => {
    await using other = await TestSandbox.make(machine, 1);
    expect(await other.run("sleep 1000 >/dev/null 2>&1 & echo $! >/tmp/pid; echo begun")).toMatchObject({
      exitCode: 0,
    });
    expect(await other.print("kill -0 $(cat /tmp/pid) && echo alive")).toBe("alive\n");
  });

  describe("that is used again", () => {
    const print = async (script: string): Promise<string> => (await run(script)).stdout.toString().trim();
    const short = `sleep ${0.1 * patience}`;
    const others = "grep -l sq-session /proc/[0-9]*/comm | cut -d/ -f3 | grep -vx $PPID";

    it("has the next command, with nothing of the last one", async () => {
      const secret = "of the last one ".repeat(20_000);
      let [before, now] = ["", "none"];
      // on a machine that is busy the session may be gone before the next command comes
      for (let round = 0; round < 20 && now !== before; round++) {
        const first = await run("cat; umask 077; cd /tmp; ulimit -n 64; export LEFT=over; echo $PPID >/tmp/first", {
          stdin: secret,
          outputLimit: 1_000,
        });
        expect(first.stdoutTruncated).toBe(true);
        const next = await run("cat; umask; pwd; ulimit -n; echo $LEFT; cat /tmp/first; echo $PPID");
        const [umask, directory, files, left, ...sessions] = next.stdout.toString().split("\n");
        expect([umask, directory, files, left]).toEqual(["0022", "/", String(filesInside()), ""]);
        expect(next.stdoutTruncated).toBe(false);
        [before = "", now = ""] = sessions;
      }
      expect(now).toBe(before);
    });

    it("is not, as long as a process of the last command lives", async () => {
      const session = await print("sleep 1001 >/dev/null 2>&1 & echo $PPID");
      expect(await print("echo $PPID")).not.toBe(session);
      expect(await print("grep PPid /proc/$(pidof sleep)/status; kill $(pidof sleep)")).toBe("PPid:\t1");
    });

    it("is not, when it had to kill a command", async () => {
      const session = (await run("echo $PPID; sleep 1001", { timeoutMs: 300 })).stdout.toString().trim();
      expect(session).toMatch(/^\d+$/);
      expect(await print("echo $PPID")).not.toBe(session);
    });

    it.each(["STOP", "KILL"])(
      "is not, when it was sent SIG%s while it waited, and no command is lost",
      async (signal) => {
        for (let round = 0; round < often(10); round++) {
          let hit = "";
          // on a machine that is busy there may be one session, and not two at once, or the other one may have gone
          for (let times = 0; times < 20 && hit === ""; times++) {
            await Promise.all([run(short), run(short)]);
            hit = await print(`for pid in $(${others}); do kill -${signal} $pid; echo $pid; done`);
          }
          expect(hit).toMatch(/^\d+(\n\d+)*$/);
          const used = await Promise.all([print("sleep 0.1; echo $PPID"), print("sleep 0.1; echo $PPID")]);
          for (const pid of used) expect(pid).toMatch(/^\d+$/);
          for (const pid of hit.split("\n")) expect(used).not.toContain(pid);
          // one that was stopped on its way to rest is nobody's to end
          await run(`kill -CONT ${hit.replaceAll("\n", " ")} 2>/dev/null`);
        }
      },
    );

    it("is not, when its priority or its processors are not init's any more", async () => {
      for (const change of ["renice -n 5 -p $PPID", "ionice -c 3 -p $PPID", "taskset -p 1 $PPID"]) {
        const session = await print(`${change} 2>&1 >/dev/null && echo $PPID`);
        expect(session).toMatch(/^\d+$/);
        expect(await print("echo $PPID")).not.toBe(session);
      }
    });

    it("ends when nobody needs it for a while", async () => {
      await Promise.all([run("sleep 0.1"), run("sleep 0.1"), run("sleep 0.1")]);
      expect(running().length).toBeLessThanOrEqual(3);
      await expect.poll(running, { timeout: 4_000 }).toEqual([]);
    });
  });

  it("with a cell that is not there, or has died, fails", async () => {
    const absent = runSession(join(machine.runDir, "cells/99.sock"), commandOf("true"), never);
    await expect(absent).rejects.toMatchObject({ code: "sandbox_broken" });
    await using other = await TestSandbox.make(machine, 2);
    const cut = other.run("sleep 1000").catch((error: unknown) => error);
    await expect.poll(async () => await other.print("ps -o args | grep -c '^sleep 100[0]'")).toBe("1\n");
    process.kill(other.pid, "SIGKILL");
    expect(await cut).toMatchObject({ code: "sandbox_broken" });
    await expect(other.run("true")).rejects.toMatchObject({ code: "sandbox_broken" });
  });
});

/** Ends it where it is a session that runs no command. */
function endIfResting(pid: string): void {
  try {
    const isSession = readFileSync(`/proc/${pid}/comm`, "utf8") === "sq-session\n";
    if (isSession && readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8") === "")
      process.kill(Number(pid), "SIGKILL");
  } catch {
    // it has ended by itself
  }
}
