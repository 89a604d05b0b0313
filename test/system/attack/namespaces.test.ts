import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { attack, control, createTarget, scratch } from "../../support/probe.js";
import { lacks } from "../../support/needs.js";
import { useTarget } from "../../support/target.js";

const target = useTarget();
const folder = scratch();
const place = join(folder.path, "place");
let nesting: Sandbox;

beforeAll(async () => {
  mkdirSync(place);
  nesting = await createTarget(target.squashd.client, { id: "nesting", nested_userns: true });
  for (const sandbox of [target.sandbox, nesting]) await sandbox.exec("mkdir -p /tmp/place /tmp/upper /tmp/work");
});
afterAll(async () => {
  await target.squashd.client.sandbox("nesting").destroy();
  folder[Symbol.dispose]();
});

const mounts: readonly [string, string][] = [
  ["proc", "mount proc proc PLACE"],
  ["sysfs", "mount sysfs sysfs PLACE"],
  ["a control group hierarchy", "mount cgroup2 cgroup2 PLACE"],
  ["a device filesystem", "mount devtmpfs devtmpfs PLACE"],
  ["debugfs", "mount debugfs debugfs PLACE"],
];
const flags = {
  user: 0x10000000,
  mnt: 0x20000,
  pid: 0x20000000,
  net: 0x40000000,
  ipc: 0x8000000,
  uts: 0x4000000,
  cgroup: 0x2000000,
};
/** EINVAL, ENOENT, EBUSY: the host has no such hierarchy (version 2), or no such file where the sandbox looks */
const groupRefusal = /^refused: (EPERM|EACCES|EINVAL|ENOENT|EBUSY)$/;
const inSandbox = (text: string): string => text.replaceAll("PLACE", "/tmp/place");
const onHost = (text: string): string => text.replaceAll("PLACE", place);

describe.skipIf(lacks("root"))("a mount", () => {
  it.each([...mounts, ["tmpfs", "mount tmpfs tmpfs PLACE"], ["a directory again", "mount bind / PLACE"]])(
    "of %s is refused",
    async (_, text) => {
      expect(await attack(target.sandbox, inSandbox(text))).toBe("refused: EPERM");
      expect(control(onHost(text))).toMatch(/^escaped: |^refused: (EBUSY|ENODEV)$/); // a kernel without that filesystem
    },
  );

  it.each([
    [
      "be made writable",
      "mount remount-rw none /proc/sys",
      "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys",
    ],
    ["be taken away", "umount /proc/kallsyms", "mount --bind /dev/null /proc/kallsyms"],
  ])("that protects /proc cannot %s", async (_, text, prepare) => {
    expect(await attack(target.sandbox, text)).toBe("refused: EPERM");
    expect(control(text, { prepare })).toMatch(/^escaped: /);
  });

  it("of an overlay is refused", async () => {
    const options = "lowerdir=/opt,upperdir=/tmp/upper,workdir=/tmp/work";
    expect(await attack(target.sandbox, `mount overlay overlay /tmp/place ${options}`)).toBe("refused: EPERM");
    expect(control(`mount overlay overlay ${place} lowerdir=/opt:/usr`)).toMatch(/^escaped: /);
  });

  it("of control groups with a program that the host runs when one ends is refused", async () => {
    const own = `none,name=${target.squashd.mark}`;
    for (const options of ["memory", "pids", own]) {
      expect(await attack(target.sandbox, `cgroup-file /tmp/place ${options} release_agent`)).toBe("refused: EPERM");
      expect(await attack(nesting, `nested cgroup-file /tmp/place ${options} release_agent`)).toMatch(groupRefusal);
    }
    expect(control(`cgroup-file ${place} ${own} release_agent`)).toMatch(/^escaped: /);
  });

  it("is not made by what comes from a mount namespace of the host", async () => {
    const before = (await target.sandbox.exec("cat /proc/self/mountinfo")).stdout;
    expect(control(`mount tmpfs tmpfs ${place}`)).toMatch(/^escaped: /);
    expect((await target.sandbox.exec("cat /proc/self/mountinfo")).stdout).toBe(before);
    expect(before).not.toMatch(/shared:|master:/);
  });
});

describe.skipIf(lacks("root"))("a namespace", () => {
  it.each(Object.entries(flags))("of kind %s cannot be made", async (_, flag) => {
    expect(await attack(target.sandbox, `unshare ${flag}`)).toBe("refused: EPERM");
    expect(await attack(target.sandbox, `clone ${flag}`)).toBe("refused: EPERM");
    expect(await attack(target.sandbox, `clone3 ${flag}`)).toBe("refused: ENOSYS"); // its flags cannot be looked at
    expect(control(`unshare ${flag}`)).toMatch(/^escaped: /);
    expect(control(`clone ${flag}`)).toMatch(/^escaped: /);
    expect(control(`clone3 ${flag}`)).toMatch(/^escaped: /);
  });

  it.each(["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"])("of kind %s cannot be joined", async (kind) => {
    expect(await attack(target.sandbox, `join ${kind}`)).toBe("refused: EACCES");
    expect(await attack(target.sandbox, `setns ${kind}`)).toBe("refused: EPERM");
    expect(await attack(nesting, `join ${kind}`)).toBe("refused: EACCES");
    expect(await attack(nesting, `nested join ${kind}`)).toMatch(/^refused: (EACCES|EPERM|ESRCH)$/);
  });

  it("of the host could be joined without protection", () => {
    expect(control("join net", { unshare: ["--net"] })).toMatch(/^escaped: /);
    expect(control("join uts", { unshare: ["--uts"] })).toMatch(/^escaped: /);
    expect(control("setns net")).toMatch(/^escaped: /);
  });
});

describe.skipIf(lacks("root"))("a sandbox that may make user namespaces", () => {
  it("can, and has a root inside that", async () => {
    expect(await attack(nesting, `unshare ${flags.user}`)).toMatch(/^escaped: /);
    expect(await attack(nesting, "nested mount tmpfs tmpfs /tmp/place")).toMatch(/^escaped: /);
  });

  it.each(mounts)("still cannot mount %s", async (_, text) => {
    expect(await attack(nesting, inSandbox(text))).toBe("refused: EPERM");
    if (text.includes("cgroup2")) return; // shows its own group, read-only by ownership
    expect(await attack(nesting, `nested ${inSandbox(text)}`)).toMatch(/^refused: (EPERM|ENODEV)$/);
  });

  it.each([
    ["uncover what is masked", "umount /proc/kallsyms"],
    ["take /proc away from under its masks", "umount /proc"],
    ["make /proc/sys writable", "mount remount-rw none /proc/sys"],
    ["make the devices' folder writable", "mount remount-rw none /dev"],
    ["copy /proc without its masks", "open-tree /proc"],
    ["bind /proc without its masks", "mount bind /proc /tmp/place"],
    ["make a block device", "mknod /tmp/device b 7 0"],
    ["open a file by its handle", "handle"],
    ["use raw sockets", "socket 17 3 768"],
    ["load a program into the kernel", "call bpf"],
    ["use io_uring", "call io_uring_setup"],
    ["read the kernel's log", "call syslog"],
    ["trace pid 1", "ptrace 1"],
  ])("still cannot %s", async (_, text) => {
    expect(await attack(nesting, text)).toMatch(/^refused: (EPERM|EAFNOSUPPORT)$/);
    expect(await attack(nesting, `nested ${text}`)).toMatch(/^refused: (EPERM|EINVAL|EAFNOSUPPORT)$/);
  });

  it.each([
    "memory memory.limit_in_bytes",
    "pids pids.max",
    "cpu cpu.cfs_quota_us",
    "pids cgroup.procs",
    "freezer tasks",
  ])("still cannot change its limits: %s", async (file) => {
    expect(await attack(nesting, `nested cgroup-file /tmp/place ${file}`)).toMatch(groupRefusal);
    const own = `none,name=${target.squashd.mark}`;
    expect(control(`cgroup-file ${place} ${own} cgroup.procs`)).toMatch(/^escaped: /);
  });

  it("still finds nothing to write in /proc and /sys", async () => {
    for (const path of ["/proc", "/sys"]) expect(await attack(nesting, `nested walk ${path}`)).toBe("refused: EACCES");
    expect(await attack(nesting, "nested read /proc/kallsyms")).toMatch(/^refused: (ENODATA|EACCES)$/);
  });
});
