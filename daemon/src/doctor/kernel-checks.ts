import { access, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { release } from "node:os";
import type { DoctorCheck } from "@squash/sdk/protocol";
import { findCgroups } from "../kernel/cgroup.js";
import { isAtLeast, mappableFormats } from "../kernel/image-formats.js";
import { check, readOptional, type Finding } from "./check.js";

const oldestKernel = [5, 19] as const;
const leastPids = 32_768;
const leastFiles = 4_096;

/** What squashd needs of the kernel and of its own rights. */
export function kernelChecks(settings: { readonly cgroupRoot: string }): Promise<DoctorCheck[]> {
  return Promise.all([
    check("root", true, () => isRoot(process.getuid?.() ?? -1)),
    check("kernel", true, () => kernelVersion(release())),
    check("user namespaces", true, async () =>
      userNamespaces(await readOptional("/proc/sys/user/max_user_namespaces")),
    ),
    check("overlayfs", true, () => filesystem("overlay", "sandboxes cannot have a root file system")),
    check("squashfs", false, () => filesystem("squashfs", "modules need an erofs image")),
    check("erofs", false, () =>
      filesystem("erofs", "modules need a squashfs image and a kernel of 6.2 or later, and files are read more slowly"),
    ),
    check("module images", true, async () => moduleImages(release(), await knownFilesystems())),
    check("loop devices", true, loopControl),
    check("cgroups", true, () => cgroups(settings.cgroupRoot)),
    check("seccomp", true, async () => seccomp(await readOptional("/proc/sys/kernel/seccomp/actions_avail"))),
    check("file descriptors", false, async () => fileLimit(await readFile("/proc/self/limits", "utf8"))),
    check("process ids", false, async () => pidMax(Number(await readOptional("/proc/sys/kernel/pid_max")))),
  ]);
}

/** Whether `version` is at least 5.19, the first whose overlayfs takes layers with mapped ids. */
export function kernelVersion(version: string): Finding {
  const advice = `needed is ${oldestKernel.join(".")} or later (overlayfs over mapped layers)`;
  return { ok: isAtLeast(version, oldestKernel), found: version, advice };
}

/** Whether the images of modules can be mounted with mapped ids: erofs since 5.19, squashfs since 6.2. By the version alone, nothing is mounted. */
export function moduleImages(version: string, filesystems: readonly string[]): Finding {
  const able = mappableFormats(version).filter((format) => filesystems.includes(format));
  if (able.length === 0)
    return {
      ok: false,
      found: `kernel ${version} can map the ids of neither erofs nor squashfs`,
      advice: "load erofs (modprobe erofs), or boot 6.2 or later",
    };
  const lacking = able.includes("squashfs")
    ? ""
    : "; squashfs needs 6.2, modules without an erofs image cannot be used (mkbase makes both)";
  return { ok: true, found: `${able.join(" and ")} with mapped ids${lacking}` };
}

/** Reads the content of `max_user_namespaces`. */
export function userNamespaces(maximum: string | null): Finding {
  const advice = "boot a kernel with CONFIG_USER_NS, and set sysctl user.max_user_namespaces to 10000 or so";
  if (maximum === null) return { ok: false, found: "the kernel has none", advice };
  return { ok: Number(maximum) > 0, found: `up to ${maximum}`, advice };
}

/** Reads the content of `actions_avail`. */
export function seccomp(actions: string | null): Finding {
  const words = actions?.split(/\s+/) ?? [];
  const missing = ["errno", "kill_process"].filter((action) => !words.includes(action));
  if (missing.length === 0) return { ok: true, found: words.join(" ") };
  return { ok: false, found: `lacks ${missing.join(", ")}`, advice: "boot a kernel with CONFIG_SECCOMP_FILTER" };
}

/** Reads the content of `/proc/self/limits`. Source: proc(5) */
export function fileLimit(limits: string): Finding {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1] ?? "unknown";
  const ok = hard === "unlimited" || Number(hard) >= leastFiles;
  return {
    ok,
    found: `up to ${hard}`,
    advice: `with less than ${leastFiles} the number of sandboxes and commands is small; raise LimitNOFILE of the service`,
  };
}

function pidMax(maximum: number): Finding {
  return {
    ok: maximum >= leastPids,
    found: `up to ${maximum}`,
    advice: `all sandboxes together share them; set sysctl kernel.pid_max to 4194304`,
  };
}

function isRoot(uid: number): Finding {
  return { ok: uid === 0, found: uid === 0 ? "yes" : `this is user ${uid}`, advice: "start it as root" };
}

async function filesystem(name: string, cost: string): Promise<Finding> {
  if ((await knownFilesystems()).includes(name)) return { ok: true, found: "the kernel has it" };
  const loadable = await isLoadable(name);
  if (loadable) return { ok: true, found: "the kernel loads it when it is first used" };
  return {
    ok: false,
    found: "the kernel does not have it",
    advice: `without it ${cost}; modprobe ${name}, or boot another kernel`,
  };
}

async function knownFilesystems(): Promise<string[]> {
  const known = (await readFile("/proc/filesystems", "utf8")).split("\n").map((line) => line.split("\t").at(-1) ?? "");
  const loadable = await Promise.all(
    ["erofs", "squashfs"]
      .filter((name) => !known.includes(name))
      .map(async (name) => ((await isLoadable(name)) ? [name] : [])),
  );
  return [...known, ...loadable.flat()];
}

/** Whether the kernel's index of modules has it, without loading it. Source: modules.dep(5) */
async function isLoadable(name: string): Promise<boolean> {
  const index = await readOptional(`/lib/modules/${release()}/modules.dep`);
  return index?.split("\n").some((line) => basename(line.split(":")[0] ?? "").split(".")[0] === name) ?? false;
}

async function loopControl(): Promise<Finding> {
  const exists = await access("/dev/loop-control").then(
    () => true,
    () => false,
  );
  return {
    ok: exists,
    found: exists ? "/dev/loop-control" : "/dev/loop-control is missing",
    advice: "modprobe loop; in a container, pass the device in",
  };
}

async function cgroups(name: string): Promise<Finding> {
  try {
    const { version, paths } = await findCgroups(await readFile("/proc/self/mountinfo", "utf8"), name);
    const controllers = version === 2 ? "memory, cpu, pids" : "memory, cpu, pids, freezer";
    return { ok: true, found: `version ${version} with ${controllers}, below ${paths[0] ?? ""}` };
  } catch (error) {
    return { ok: false, found: (error as Error).message };
  }
}
