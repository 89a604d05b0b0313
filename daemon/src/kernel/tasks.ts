import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { CellTask } from "../core/ports.js";

/** Processes of a cell's cgroup besides init and its sessions, which run the same program. One that ends meanwhile is left out; of a cell whose init is ending, none is. */
export async function listTasks(cgroup: string, init: number): Promise<CellTask[]> {
  const own = await programOf(init).catch(ofNone);
  const pids = (await readProcs(cgroup)).split("\n").filter((line) => line !== "");
  const tasks = await Promise.all(pids.map((pid) => readTask(Number(pid), own)));
  return tasks.filter((task) => task !== null);
}

/** A cell that has ended loses its cgroup, which may be open then. */
async function readProcs(cgroup: string): Promise<string> {
  try {
    return await readFile(join(cgroup, "cgroup.procs"), "utf8");
  } catch (error) {
    if (["ENOENT", "ENODEV"].includes((error as NodeJS.ErrnoException).code ?? "")) return "";
    throw error;
  }
}

/** The file itself tells: its name inside a sandbox is the sandbox's to choose, and no image holds this file. */
async function programOf(pid: number): Promise<string> {
  const { dev, ino } = await stat(`/proc/${pid}/exe`);
  return `${dev}:${ino}`;
}

async function readTask(pid: number, own: string | null): Promise<CellTask | null> {
  try {
    if ((await programOf(pid)) === own) return null;
    return { pid, name: (await readFile(`/proc/${pid}/comm`, "utf8")).trimEnd() };
  } catch (error) {
    return ofNone(error);
  }
}

/** Of a process that has ended; one that only waits to be reaped has no program either. */
function ofNone(error: unknown): null {
  if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return null;
  throw error;
}
