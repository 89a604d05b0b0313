import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { listTasks } from "./tasks.js";

const cgroup = mkdtempSync(join(tmpdir(), "tasks-test-"));
const ended = spawnSync("true").pid;
const sleeping = spawn("sleep", ["60"]);

afterAll(() => {
  sleeping.kill("SIGKILL");
  rmSync(cgroup, { recursive: true, force: true });
});

describe("listTasks()", () => {
  const tasks = (init: number, pids: readonly (number | undefined)[]): ReturnType<typeof listTasks> => {
    writeFileSync(join(cgroup, "cgroup.procs"), pids.map((pid) => `${pid}\n`).join(""));
    return listTasks(cgroup, init);
  };

  it("names what runs besides init, and not what has ended", async () => {
    await expect
      .poll(() => tasks(process.pid, [process.pid, sleeping.pid, ended]))
      .toEqual([{ pid: sleeping.pid, name: "sleep" }]);
  });

  it("names all that still runs where init has ended", async () => {
    expect(await tasks(ended, [ended])).toEqual([]);
    expect((await tasks(ended, [ended, sleeping.pid])).map(({ pid }) => pid)).toEqual([sleeping.pid]);
  });

  it("names nothing of a cell that is gone", async () => {
    expect(await listTasks(join(cgroup, "none"), ended)).toEqual([]);
  });
});
