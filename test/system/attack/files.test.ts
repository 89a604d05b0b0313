import { chmodSync, closeSync, copyFileSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { repositoryRoot } from "../../support/root.js";
import { attack, control, probeProgram, scratch } from "../../support/probe.js";
import { lacks } from "../../support/needs.js";
import { useTarget } from "../../support/target.js";

const target = useTarget();
const folder = scratch();
const jail = join(folder.path, "jail");
/** A chroot as the host's root with everything else left as it is: what a sandbox without protection would be. */
const unprotected = { unshare: ["--pid", "--fork"] } as const;

beforeAll(() => {
  chmodSync(folder.path, 0o755);
  mkdirSync(jail);
  copyFileSync(probeProgram(), join(folder.path, "victim"));
});
afterAll(() => folder[Symbol.dispose]());

describe.skipIf(lacks("root"))("devices", () => {
  it("of the host are not in /dev", async () => {
    expect(await attack(target.sandbox, "devices /dev")).toBe("refused: ENODEV");
    expect(control("devices /dev")).toMatch(/^escaped: /);
  });

  it.each([
    ["a block device", "b 7 0"],
    ["the memory", "c 1 1"],
    ["the kernel's log", "c 1 11"],
    ["FUSE", "c 10 229"],
  ])("cannot be made: %s", async (_, device) => {
    for (const place of ["/tmp", "/dev/shm", "/run"])
      expect(await attack(target.sandbox, `mknod ${place}/device ${device}`)).toMatch(/^refused: (EPERM|EACCES)$/);
    // the host may not have what the number stands for; that it could be made is enough
    expect(control(`mknod ${folder.path}/device ${device}`)).toMatch(/^escaped: |^refused: (ENXIO|ENODEV)$/);
  });

  it("cannot be made by way of a layer's or an own file", async () => {
    const { stdout } = await target.sandbox.exec(
      "cp -a /dev/null /tmp/null 2>&1; ls -l /tmp/null 2>&1; mknod /tmp/n c 1 3 2>&1",
    );
    expect(stdout).not.toMatch(/^crw/m);
    expect(stdout).toContain("Operation not permitted");
  });
});

describe.skipIf(lacks("root"))("the host's files", () => {
  it.each(["root", "cwd"])("are not behind the %s of any process", async (kind) => {
    expect(await attack(target.sandbox, `follow ${kind}`)).toBe("refused: EACCES");
    expect(control(`jail ${jail} follow ${kind}`, unprotected)).toMatch(/^escaped: /);
  });

  it("are not reached by a second chroot", async () => {
    expect(await attack(target.sandbox, "chroot")).toBe("refused: EXDEV");
    expect(control(`jail ${jail} chroot`, unprotected)).toMatch(/^escaped: /);
  });

  it("are not behind a descriptor that was left open", async () => {
    expect(await attack(target.sandbox, "descriptors")).toBe("refused: EACCES");
    const leaked = openSync("/", "r");
    try {
      expect(control("descriptors", { descriptor: leaked })).toMatch(/^escaped: descriptor 3 is \//);
    } finally {
      closeSync(leaked);
    }
  });

  it("are not where a path leads out of the root", async () => {
    const { stdout } = await target.sandbox.exec(
      "cd /; ls -di / /.. /../.. ../../..; ls -d /squashd /proc/1/root/* 2>&1",
    );
    const inodes = stdout.match(/^ *(\d+) [/.]+$/gm)?.map((line) => line.trim().split(" ")[0]);
    expect(inodes).toHaveLength(4);
    expect(new Set(inodes).size).toBe(1);
  });

  it("of another sandbox are not there either", async () => {
    await target.neighbour.exec("echo secret > /root/secret; echo secret > /dev/shm/secret; echo secret > /tmp/secret");
    const { stdout } = await target.sandbox.exec(
      "cat /root/secret /dev/shm/secret /tmp/secret; ls /root /dev/shm /tmp",
    );
    expect(stdout).not.toContain("secret");
  });
});

describe.skipIf(lacks("root"))("sq-host's program", () => {
  const original = join(repositoryRoot, "native/build/sq-host");

  /** Runs the attack inside while commands make init's child run its own program, by the links that lead to it. */
  async function overwrite(commands: readonly string[][]): Promise<string> {
    const done = new AbortController();
    const attacking = attack(target.sandbox, "overwrite exe 10").finally(() => done.abort());
    while (!done.signal.aborted) for (const command of commands) await target.sandbox.exec(command);
    return attacking;
  }

  it("cannot be overwritten from a sandbox that makes init run it", async () => {
    const before = readFileSync(original);
    await target.sandbox.exec(
      "mkdir /tmp/l; ln -s /proc/self/exe /tmp/l/exe; printf '#!/proc/self/exe' > /tmp/l/script; chmod 755 /tmp/l/script",
    );
    expect(await overwrite([["/proc/self/exe"], ["/tmp/l/exe"]])).toMatch(/^refused: (EACCES|EROFS)$/);
    expect((await target.sandbox.exec(["/tmp/l/script"])).exit_code).not.toBe(0);
    expect(readFileSync(original).equals(before)).toBe(true);
  });

  it("could be, without protection", () => {
    const victim = spawn(join(folder.path, "victim"), ["sleep", "700"], { stdio: "ignore" });
    try {
      expect(control("overwrite victim 10")).toMatch(/^escaped: /);
    } finally {
      victim.kill("SIGKILL");
    }
  });

  it("cannot be reached through pid 1", async () => {
    for (const path of ["/proc/1/exe", "/proc/1/mem", "/proc/1/environ", "/proc/1/maps"]) {
      expect(await attack(target.sandbox, `read ${path}`)).toMatch(/^refused: (EACCES|EPERM)$/);
      expect(await attack(target.sandbox, `open-write ${path}`)).toMatch(/^refused: (EACCES|EPERM)$/);
    }
    expect(control("jail / read /proc/1/exe", unprotected)).toMatch(/^escaped: /);
    expect(control("jail / open-write /proc/1/mem", unprotected)).toMatch(/^escaped: /);
  });
});
