import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { attack, control } from "../../support/probe.js";
import { lacks } from "../../support/needs.js";
import { useTarget } from "../../support/target.js";

const target = useTarget();

describe.skipIf(lacks("root"))("a system call that reaches the kernel as a whole", () => {
  it.each([
    "call bpf",
    "call perf_event_open",
    "call io_uring_setup",
    "call add_key",
    "call keyctl",
    "call userfaultfd",
    "call syslog",
    "call settimeofday",
    "call clock_settime",
    "call reboot",
    "call swapon",
    "call acct",
    "call init_module",
    "call kexec_load",
    "call fanotify_init",
    "call memfd_secret",
    "call iopl",
    "call modify_ldt",
    "call kcmp",
    "handle",
    "fsopen tmpfs",
    "move-mount",
    "open-tree /",
    "pivot",
  ])("%s is refused", async (text) => {
    expect(await attack(target.sandbox, text)).toBe("refused: EPERM");
    // a kernel that was built without the call has nothing to protect
    expect(control(text)).toMatch(/^escaped: |^refused: ENOSYS$/);
  });

  it.each([
    ["int80", "32-bit"],
    ["x32", "x32"],
  ])("by %s ends the caller, as the filter does not know %s calls", async (text) => {
    const unprotected = control(text);
    // without 32-bit emulation the processor itself refuses the entry, before any filter sees it
    expect(unprotected).toMatch(/^escaped: |^refused: (ENOSYS|SIGSEGV)$/);
    const ownRefusal = unprotected === "refused: SIGSEGV" && text === "int80";
    expect(await attack(target.sandbox, text)).toBe(ownRefusal ? unprotected : "refused: SIGSYS");
  });

  it("is refused to other users inside as well", async () => {
    for (const text of ["call bpf", "call io_uring_setup", "unshare 0x10000000"])
      expect(await attack(target.sandbox, text, { user: "user" })).toBe("refused: EPERM");
    expect(control("unshare 0x10000000", { uid: 65_533 })).toMatch(/^escaped: /);
  });
});

describe.skipIf(lacks("root"))("a socket", () => {
  it.each([
    ["packet", "17 3 768", "EAFNOSUPPORT"],
    ["vsock", "40 1 0", "EAFNOSUPPORT"],
    ["kernel crypto", "38 5 0", "EAFNOSUPPORT"],
    ["CAN", "29 3 1", "EAFNOSUPPORT"],
    ["Bluetooth", "31 3 1", "EAFNOSUPPORT"],
    ["XDP", "44 3 0", "EAFNOSUPPORT"],
    ["raw IPv4", "2 3 1", "EPERM"],
    ["raw IPv6", "10 3 58", "EPERM"],
    ["netlink audit", "16 3 9", "EPROTONOSUPPORT"],
    ["netlink uevent", "16 3 15", "EPROTONOSUPPORT"],
    ["netlink socket diagnosis", "16 3 4", "EPROTONOSUPPORT"],
    ["netlink netfilter", "16 3 12", "EPROTONOSUPPORT"],
    ["netlink generic", "16 3 16", "EPROTONOSUPPORT"],
    // only the low half of the family counts for the kernel
    ["packet with a high bit", "0x100000011 3 768", "EAFNOSUPPORT"],
  ])("of kind %s is refused", async (_, numbers, code) => {
    expect(await attack(target.sandbox, `socket ${numbers}`)).toBe(`refused: ${code}`);
    expect(control(`socket ${numbers}`)).toMatch(/^escaped: |^refused: (EAFNOSUPPORT|EPROTONOSUPPORT)$/);
  });

  it("for routing netlink is there, but configures nothing", async () => {
    expect(await attack(target.sandbox, "socket 16 3 0")).toMatch(/^escaped: /);
    expect(await attack(target.sandbox, "link-down")).toBe("refused: EPERM");
    expect(control("link-down", { unshare: ["--net"] })).toMatch(/^escaped: /);
  });
});

describe.skipIf(lacks("root"))("a terminal", () => {
  it("takes no characters that were not typed", async () => {
    expect(await attack(target.sandbox, "tiocsti")).toBe("refused: EPERM");
    expect(control("tiocsti")).toMatch(/^escaped: |^refused: EIO$/); // EIO: a kernel without it
  });

  it("does not speak for the console", async () => {
    expect(await attack(target.sandbox, "tioclinux")).toBe("refused: EPERM");
    expect(control("tioclinux")).toMatch(/^escaped: /);
  });
});

describe.skipIf(lacks("root"))("the kernel's files", () => {
  it.each([
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/sys/devices/system/cpu/cpu1/online",
    "/dev/kmsg",
    "/dev/mem",
    "/dev/port",
  ])("%s cannot be written", async (path) => {
    expect(await attack(target.sandbox, `open-write ${path}`)).toMatch(/^refused: (EROFS|EACCES|ENOENT)$/);
    expect(control(`open-write ${path}`)).toMatch(existsSync(path) ? /^escaped: / : /^refused: ENOENT$/);
  });

  it.each(["/proc/kcore", "/proc/kallsyms", "/proc/interrupts", "/proc/timer_list", "/proc/keys", "/proc/modules"])(
    "%s tells nothing",
    async (path) => {
      expect(await attack(target.sandbox, `read ${path}`)).toMatch(/^refused: (ENODATA|ENOENT|EACCES)$/);
      expect(control(`read ${path}`)).toMatch(existsSync(path) ? /^escaped: / : /^refused: ENOENT$/);
    },
  );

  it("and any others in /proc and /sys cannot be written", async () => {
    expect(await attack(target.sandbox, "walk /proc")).toBe("refused: EACCES");
    expect(await attack(target.sandbox, "walk /sys")).toBe("refused: EACCES");
    expect(control("walk /proc/sys/vm")).toMatch(/^escaped: /);
  });

  it("do not name anything of the host", async () => {
    const files = "/proc/self/mountinfo /proc/self/cgroup /proc/1/cgroup /proc/net/unix /proc/mounts /proc/swaps";
    const { stdout } = await target.sandbox.exec(`cat ${files} 2>/dev/null; env`);
    expect(stdout).toContain("overlay");
    expect(stdout).not.toContain(target.squashd.mark);
    expect(stdout).not.toContain(target.squashd.home);
  });
});
