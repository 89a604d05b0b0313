import { describe, expect, it } from "vitest";
import { attack, control } from "../../support/probe.js";
import { lacks } from "../../support/needs.js";
import { useTarget } from "../../support/target.js";

const target = useTarget();
/** A process namespace of its own, where the probe is a child of pid 1, which is nothing but root's. */
const jailed = { unshare: ["--pid", "--fork"] } as const;

describe.skipIf(lacks("root"))("pid 1 of a sandbox", () => {
  it.each([
    ["traced", "ptrace 1", "EPERM"],
    ["written to by process_vm_writev", "vm-write 1", "EPERM"],
    ["written to by its memory file", "memory-file 1", "EACCES"],
    ["robbed of a descriptor", "pidfd-getfd 1", "EPERM"],
  ])("cannot be %s", async (_, text, code) => {
    expect(await attack(target.sandbox, text)).toBe(`refused: ${code}`);
    expect(await attack(target.sandbox, text, { user: "user" })).toBe(`refused: ${code}`);
    expect(control(`jail / ${text}`, jailed)).toMatch(/^escaped: /);
  });

  it("shows no descriptors, working directory, or maps", async () => {
    const { stdout, stderr } = await target.sandbox.exec(
      "ls /proc/1/fd /proc/1/map_files; readlink /proc/1/exe /proc/1/cwd /proc/1/root /proc/1/ns/user; cat /proc/1/maps",
    );
    expect(stdout.replace(/^.*:$/gm, "").trim()).toBe(""); // ls names the folders that it could not read
    expect(stderr).not.toBe("");
  });

  it("does not die of signals", async () => {
    const { pid } = await target.sandbox.info();
    for (let signal = 1; signal < 65; signal++) await target.sandbox.exec(`kill -${signal} 1`);
    expect(await target.sandbox.exec("echo alive")).toMatchObject({ stdout: "alive\n" });
    expect(await target.sandbox.info()).toMatchObject({ pid, restarts: 0 });
    expect(control("jail / kill 1", jailed)).toMatch(/^escaped: /);
  });
});

describe.skipIf(lacks("root"))("a process outside", () => {
  it("has no number inside", async () => {
    for (const pid of [target.squashd.pid, (await target.sandbox.info()).pid, (await target.neighbour.info()).pid]) {
      expect(await attack(target.sandbox, `kill ${pid}`)).toBe("refused: ESRCH");
      expect(await attack(target.sandbox, `pidfd ${pid}`)).toBe("refused: ESRCH");
      expect(await attack(target.sandbox, `ptrace ${pid}`)).toBe("refused: ESRCH");
      expect(control(`kill ${pid}`)).toMatch(/^escaped: /);
      expect(control(`pidfd ${pid}`)).toMatch(/^escaped: /);
    }
  });

  it("is not listed in /proc", async () => {
    const { stdout } = await target.sandbox.exec("cat /proc/[0-9]*/comm");
    for (const name of stdout.trim().split("\n")) expect(["cat", "sh", "sq-init", "sq-session"]).toContain(name);
    expect(stdout).not.toMatch(/node|sq-host|squashd/);
  });

  it("is not among those that a signal to all reaches", async () => {
    const own = await target.sandbox.exec("kill -9 -1").catch((error: unknown) => error);
    expect(own).toBeDefined(); // its own session is among them
    expect(await target.neighbour.info()).toMatchObject({ restarts: 0 });
    expect(await target.sandbox.exec("echo again")).toMatchObject({ stdout: "again\n" });
  });

  it("shares no queue, semaphore or memory", async () => {
    await target.neighbour.exec("ipcmk -Q; ipcs -q; touch /dev/mqueue/mine");
    expect(
      (await target.sandbox.exec("ls /dev/mqueue; cat /proc/sysvipc/msg /proc/sysvipc/shm | grep -vc key")).stdout,
    ).toBe("0\n");
  });

  it("answers on no socket of the network, and the abstract ones are not there", async () => {
    const { stdout } = await target.sandbox.exec(
      "cat /proc/net/unix /proc/net/tcp /proc/net/tcp6 | grep -vc 'Num\\|sl'; ip -o link 2>/dev/null",
    );
    expect(stdout.split("\n")[0]).toBe("0");
    expect(stdout.match(/^\d+: [a-z0-9]+/gm)).toEqual(["1: lo", "2: eth0"]); // its own link
  });
});
