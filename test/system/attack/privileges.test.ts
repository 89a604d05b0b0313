import { chmodSync, chownSync, copyFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { attack, control, probeProgram, scratch } from "../../support/probe.js";
import { lacks } from "../../support/needs.js";
import { useTarget } from "../../support/target.js";

const target = useTarget();
const folder = scratch();
const program = join(folder.path, "probe");
/** numbers of the capabilities that root has inside; source: linux/capability.h */
const kept = {
  CAP_CHOWN: 0,
  CAP_DAC_OVERRIDE: 1,
  CAP_FOWNER: 3,
  CAP_FSETID: 4,
  CAP_KILL: 5,
  CAP_SETGID: 6,
  CAP_SETUID: 7,
  CAP_SETPCAP: 8,
  CAP_NET_BIND_SERVICE: 10,
  CAP_SYS_CHROOT: 18,
  CAP_SETFCAP: 31,
};

beforeAll(() => {
  chmodSync(folder.path, 0o755);
  copyFileSync(probeProgram(), program);
});
afterAll(() => folder[Symbol.dispose]());

/** The lines of a process's status file that are about privileges. */
async function status(user: string): Promise<Record<string, string>> {
  const { stdout } = await target.sandbox.exec(["grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/self/status"], {
    user,
  });
  return Object.fromEntries(stdout.split("\n").map((line) => line.split(":\t") as [string, string]));
}

describe.skipIf(lacks("root"))("privileges", () => {
  it("of root inside are Docker's without raw sockets, devices and audit", async () => {
    const mask = Object.values(kept).reduce((sum, number) => sum | (1n << BigInt(number)), 0n);
    const hex = mask.toString(16).padStart(16, "0");
    const none = "0".repeat(16);
    const expected = {
      CapInh: none,
      CapPrm: hex,
      CapEff: hex,
      CapBnd: hex,
      CapAmb: none,
      NoNewPrivs: "1",
      Seccomp: "2",
    };
    expect(await status("root")).toMatchObject(expected);
    expect(await status("user")).toMatchObject({ ...expected, CapPrm: none, CapEff: none });
  });

  it("do not come from a set-user-id program", async () => {
    await target.sandbox.exec("cp /opt/probe /tmp/setuid && chmod 4755 /tmp/setuid");
    expect(await attack(target.sandbox, "setuid", { program: "/tmp/setuid", user: "user" })).toBe("refused: EPERM");
    chownSync(program, 0, 0);
    chmodSync(program, 0o4755);
    expect(control("setuid", { program, uid: 65_533 })).toMatch(/^escaped: /);
  });

  it("do not come from a program with capabilities", async () => {
    await target.sandbox.exec("cp /opt/probe /tmp/capable && chmod 755 /tmp/capable");
    expect(await attack(target.sandbox, "give-capabilities /tmp/capable")).toMatch(/^escaped: /); // that is root's to do inside
    expect(await attack(target.sandbox, "capabilities", { program: "/tmp/capable", user: "user" })).toBe(
      "refused: EPERM",
    );
    chmodSync(program, 0o755);
    expect(control(`give-capabilities ${program}`)).toMatch(/^escaped: /);
    expect(control("capabilities", { program, uid: 65_533 })).toMatch(/^escaped: /);
  });

  it("of root inside are nobody's outside", async () => {
    const { pid } = await target.sandbox.info();
    const { stdout } = await target.sandbox.exec("cat /proc/self/uid_map");
    const [first, outside, count] = stdout.trim().split(/\s+/).map(Number);
    expect([first, count]).toEqual([0, 65_536]);
    expect(outside).toBeGreaterThanOrEqual(65_536);
    expect(pid).toBeGreaterThan(1);
  });

  it("are the same in no two sandboxes", async () => {
    const [one, other] = await Promise.all(
      [target.sandbox, target.neighbour].map(async (sandbox) => (await sandbox.exec("cat /proc/self/uid_map")).stdout),
    );
    expect(one).not.toBe(other);
  });
});

describe.skipIf(lacks("root"))("a limit", () => {
  const [cpu, core, openFiles, lockedMemory, pendingSignals, priority] = [0, 4, 7, 8, 11, 14];

  it("cannot be raised", async () => {
    for (const [resource, value] of [
      [lockedMemory, 1_000_000_000],
      [openFiles, 1_048_577],
      [priority, 50],
      [pendingSignals, 5_000],
    ])
      expect(await attack(target.sandbox, `limit 0 ${resource} ${value} ${value}`)).toBe("refused: EPERM");
    expect(control(`limit 0 ${pendingSignals} 5000 5000`)).toMatch(/^escaped: /);
  });

  it("of core dumps stays at the value that keeps the host from running its core handler, which 0 does not", async () => {
    const asUser = { user: "user" };
    for (const text of [`limit 0 ${core} 0 0`, `limit 0 ${core} 0 1`, `limit 0 ${core} -1 -1`]) {
      expect(await attack(target.sandbox, text)).toBe("refused: EPERM");
      expect(await attack(target.sandbox, text, asUser)).toBe("refused: EPERM");
      expect(control(text)).toMatch(/^escaped: /);
    }
    expect((await target.sandbox.exec("grep core /proc/self/limits /proc/$$/limits")).stdout).toMatch(
      /^(.* 1 +1 +bytes *\n){2}$/,
    );
    expect(await target.sandbox.exec("ulimit -c 0; ulimit -n 100; ulimit -n")).toMatchObject({
      stdout: "100\n",
      stderr: "",
    });
    expect(await target.sandbox.exec("kill -SEGV $$")).toMatchObject({ exit_code: 139 });
  });

  it("of processor time can be lowered, as everywhere", async () => {
    expect(await attack(target.sandbox, `limit 0 ${cpu} 5 5`)).toMatch(/^escaped: /);
  });
});
