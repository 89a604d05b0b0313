import { mkdir, readFile, readdir, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { CellUsage } from "../core/ports.js";

const v1Controllers = ["memory", "cpu", "pids", "freezer"] as const;
const v2Controllers = ["memory", "cpu", "pids"] as const;

/** Where the cells' groups are: one parent directory with version 2, one per controller (memory, cpu, pids, freezer) with version 1. */
export interface CgroupLayout {
  readonly version: 1 | 2;
  readonly paths: readonly string[];
}

interface CgroupMount {
  readonly path: string;
  readonly version: 1 | 2;
  /** controllers of a version 1 mount */
  readonly controllers: readonly string[];
}

/** Parses /proc/self/mountinfo. Source: proc(5). Paths have blanks as octal escapes. */
export function parseCgroupMounts(mountinfo: string): CgroupMount[] {
  const mounts: CgroupMount[] = [];
  for (const line of mountinfo.split("\n")) {
    const [left, right] = line.split(" - ");
    const [type, , options] = (right ?? "").split(" ");
    const path = left
      ?.split(" ")[4]
      ?.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
    if (path === undefined) continue;
    if (type === "cgroup2") mounts.push({ path, version: 2, controllers: [] });
    if (type === "cgroup") mounts.push({ path, version: 1, controllers: (options ?? "").split(",") });
  }
  return mounts;
}

/** Finds the hierarchy that has the controllers: version 2 where they are there, else version 1 (also beside an empty version 2). */
export async function findCgroups(mountinfo: string, name: string): Promise<CgroupLayout> {
  const mounts = parseCgroupMounts(mountinfo);
  const unified = mounts.find((mount) => mount.version === 2);
  if (unified !== undefined) {
    const available = (await readFile(join(unified.path, "cgroup.controllers"), "utf8")).trim().split(" ");
    if (v2Controllers.every((controller) => available.includes(controller))) {
      return { version: 2, paths: [join(unified.path, name)] };
    }
  }
  const paths = v1Controllers.map((controller) => mounts.find((mount) => mount.controllers.includes(controller))?.path);
  const missing = v1Controllers.filter((_, i) => paths[i] === undefined);
  if (missing.length > 0) {
    throw new SquashError(
      "kernel",
      `Cannot limit sandboxes: no cgroup hierarchy has ${missing.join(", ")}; mount cgroup2 at /sys/fs/cgroup with memory, cpu and pids`,
    );
  }
  return { version: 1, paths: paths.map((path) => join(path ?? "", name)) };
}

/** Makes the parents and hands them their controllers. Idempotent. */
export async function prepareCgroups(layout: CgroupLayout): Promise<void> {
  for (const path of layout.paths) {
    if (layout.version === 2) await enableControllers(join(path, ".."));
    await mkdir(path, { recursive: true });
    if (layout.version === 2) await enableControllers(path);
  }
  const frozen = frozenPath(layout);
  if (frozen === null) return;
  await mkdir(frozen, { recursive: true });
  await writeFile(join(frozen, "freezer.state"), "FROZEN");
}

/**
 * An empty group that is always frozen. With version 1 the first group of a machine that freezes has the kernel rewrite its own code on all
 * processors, the last one that thaws again: 3 ms each that sandboxes would stand still.
 */
function frozenPath({ version, paths }: CgroupLayout): string | null {
  const path = paths[v1Controllers.indexOf("freezer")];
  return version === 1 && path !== undefined ? join(path, "frozen") : null;
}

async function enableControllers(path: string): Promise<void> {
  try {
    await writeFile(
      join(path, "cgroup.subtree_control"),
      v2Controllers.map((controller) => `+${controller}`).join(" "),
    );
  } catch (cause) {
    throw new SquashError(
      "kernel",
      `Cannot hand memory, cpu and pids to the groups below "${path}": ${(cause as Error).message}; a group that holds processes cannot ` +
        "(in a container, move them to a child group first)",
      { cause },
    );
  }
}

/** Removes the parents when no cell is left in them. */
export async function removeCgroups(layout: CgroupLayout): Promise<void> {
  const frozen = frozenPath(layout);
  if (frozen !== null) await rmdir(frozen).catch(() => undefined); // made again by the next start of one that still uses it
  for (const path of layout.paths) await rmdir(path).catch(() => undefined); // another squashd may use it, or it is gone
}

/** Indexes of the cells that have a group in any hierarchy. */
export async function listCells(layout: CgroupLayout): Promise<number[]> {
  const found = new Set<number>();
  for (const path of layout.paths) {
    for (const name of await readdir(path)) {
      const match = /^c(\d+)$/.exec(name);
      if (match?.[1] !== undefined) found.add(Number(match[1]));
    }
  }
  return [...found].toSorted((a, b) => a - b);
}

/** Path of a cell's group, with version 1 that of its memory controller. */
export function cellPath(layout: CgroupLayout, index: number): string {
  return join(layout.paths[0] ?? "", `c${index}`);
}

/** Reads what a cell uses. A group that is gone uses nothing. */
export async function readUsage(layout: CgroupLayout, index: number): Promise<CellUsage> {
  const path = cellPath(layout, index);
  const [memoryFile, eventsFile] =
    layout.version === 2 ? ["memory.current", "memory.events"] : ["memory.usage_in_bytes", "memory.oom_control"];
  const [memory, events] = await Promise.all([
    readOrEmpty(join(path, memoryFile)),
    readOrEmpty(join(path, eventsFile)),
  ]);
  return { memoryBytes: Number(memory) || 0, oomKills: Number(/^oom_kill (\d+)$/m.exec(events)?.[1] ?? 0) };
}

async function readOrEmpty(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT" || (error as NodeJS.ErrnoException).code === "ENODEV")
      return "";
    throw error;
  }
}
