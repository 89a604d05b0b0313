import { readFileSync, readdirSync } from "node:fs";
import { patience } from "./patience.js";

/** What a test could leave on the machine, as sorted lines. */
export interface HostState {
  readonly mounts: readonly string[];
  readonly loops: readonly string[];
  readonly netns: readonly string[];
  readonly cgroups: readonly string[];
  readonly processes: readonly string[];
}

/** Reads the machine's state, limited to what carries `marks` (names that only this test uses). Loop devices are all that are in use. */
export function hostState(marks: readonly string[]): HostState {
  const marked = (text: string): boolean => marks.some((mark) => text.includes(mark));
  return {
    mounts: readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .map((line) => line.split(" ").slice(3).join(" "))
      .filter(marked)
      .toSorted(),
    loops: names("/sys/block")
      .filter((name) => name.startsWith("loop"))
      .map((name) => readOrEmpty(`/sys/block/${name}/loop/backing_file`))
      .filter(marked)
      .toSorted(),
    netns: names("/run/netns").filter(marked).toSorted(),
    // with version 2 the groups are found by two ways
    cgroups: [...new Set(cgroupRoots().flatMap((root) => [root, ...children(root)]))].filter(marked).toSorted(),
    processes: processIds()
      .filter(
        (pid) =>
          marked(readOrEmpty(`/proc/${pid}/cgroup`)) ||
          (commandName(pid) === "sq-host" && marked(readOrEmpty(`/proc/${pid}/mountinfo`))),
      )
      .map(commandName)
      .toSorted(),
  };
}

/**
 * Waits until nothing is there that was not there `before`, since the kernel takes namespaces and loop devices down a moment later;
 * returns `before` with what is still left. What is gone is no leak: it may have been somebody else's.
 */
export async function settledState(
  before: HostState,
  marks: readonly string[],
  timeoutMs = 5_000 * patience,
): Promise<HostState> {
  const wanted = JSON.stringify(before);
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const state = withNew(before, hostState(marks));
    if (JSON.stringify(state) === wanted || Date.now() > deadline) return state;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function withNew(before: HostState, now: HostState): HostState {
  const grown = (key: keyof HostState): string[] => {
    const rest = [...now[key]];
    for (const line of before[key]) {
      const at = rest.indexOf(line);
      if (at >= 0) rest.splice(at, 1);
    }
    return [...before[key], ...rest].toSorted();
  };
  return {
    mounts: grown("mounts"),
    loops: grown("loops"),
    netns: grown("netns"),
    cgroups: grown("cgroups"),
    processes: grown("processes"),
  };
}

function cgroupRoots(): string[] {
  return names("/sys/fs/cgroup").flatMap((name) => {
    const path = `/sys/fs/cgroup/${name}`;
    return children(path).concat(name.startsWith("sq") ? [path] : []);
  });
}

function children(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `${path}/${entry.name}`);
  } catch {
    return []; // gone meanwhile, or not a directory
  }
}

function names(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return []; // not there at all
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // gone meanwhile
  }
}

/** Kills every process in a cgroup whose path has one of the marks. */
export function killMarked(marks: readonly string[]): void {
  for (const pid of processIds()) {
    if (!marks.some((mark) => readOrEmpty(`/proc/${pid}/cgroup`).includes(mark))) continue;
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // it went together with its pid namespace
    }
  }
}

function processIds(): string[] {
  return names("/proc").filter((name) => /^\d+$/.test(name));
}

function commandName(pid: string): string {
  return readOrEmpty(`/proc/${pid}/comm`).trim();
}
