import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { expect } from "vitest";
import { hostState, killMarked } from "./leaks.js";
import type { TestSquashd } from "./squashd.js";

/** What a restart of the machine does, to this squashd's things only: no process survives, nothing is mounted. */
export async function simulateReboot(squashd: TestSquashd): Promise<void> {
  const marks = [squashd.mark];
  const infos = await squashd.client.list();
  await squashd.end("SIGKILL");
  await expect
    .poll(() => {
      killMarked(marks);
      return hostState(marks).processes;
    })
    .toEqual([]);
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "");
  for (const path of mounts.filter((mount) => mount.startsWith(squashd.home)).toReversed())
    execFileSync("umount", ["-l", path]);
  squashd.netns[Symbol.dispose]();
  for (const { id } of infos) {
    execFileSync("umount", ["-l", `/run/netns/squash-${id}`]);
    rmSync(`/run/netns/squash-${id}`);
  }
  rmSync(squashd.runDir, { recursive: true });
  mkdirSync(squashd.runDir);
  for (const group of hostState(marks).cgroups.toReversed()) execFileSync("rmdir", [group]);
}
