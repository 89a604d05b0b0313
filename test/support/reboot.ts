import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { hostState, killMarked } from "./leaks.js";
import { patience } from "./patience.js";
import type { TestSquashd } from "./squashd.js";

const deadlineMs = 10_000 * patience;

/** What a restart of the machine does, to this squashd's things only: no process survives, nothing is mounted. Nothing is started again. */
export async function simulateReboot(squashd: TestSquashd): Promise<void> {
  const marks = [squashd.mark];
  const infos = await squashd.client.list();
  await squashd.end("SIGKILL");
  const deadline = Date.now() + deadlineMs;
  for (killMarked(marks); hostState(marks).processes.length > 0; killMarked(marks)) {
    if (Date.now() > deadline) throw new Error(`these do not end: ${hostState(marks).processes.join(", ")}`);
    await new Promise((done) => setTimeout(done, 10));
  }
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "");
  for (const path of mounts.filter((mount) => mount.startsWith(squashd.home)).toReversed())
    execFileSync("umount", ["-l", path]);
  squashd.netns[Symbol.dispose]();
  for (const { id, pid } of infos) {
    if (pid === null) continue;
    execFileSync("umount", ["-l", `/run/netns/${squashd.mark}-${id}`]);
    rmSync(`/run/netns/${squashd.mark}-${id}`);
  }
  rmSync(squashd.runDir, { recursive: true });
  mkdirSync(squashd.runDir);
  for (const group of hostState(marks).cgroups.toReversed()) execFileSync("rmdir", [group]);
}
