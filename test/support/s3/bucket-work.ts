import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { JobInfo, JobRequest, Sandbox } from "@squash/sdk";
import { trustByHand } from "../modules.js";
import { patience } from "../patience.js";
import { sha256Of } from "../rootfs.js";
import type { TestSquashd } from "../squashd.js";

/** Runs a job to its end, whichever that is. */
export async function jobDone({ client }: TestSquashd, request: JobRequest): Promise<JobInfo> {
  let last = await client.startJob(request);
  for await (const next of client.watchJob(last.id)) last = next;
  return last;
}

/** Runs a job that must succeed. */
export async function mustDo(squashd: TestSquashd, request: JobRequest): Promise<JobInfo> {
  const job = await jobDone(squashd, request);
  if (job.state !== "done") throw new Error(`${job.kind} ${job.module}: ${job.code} ${job.error}`);
  return job;
}

export async function until(condition: () => Promise<boolean>, seconds = 20): Promise<void> {
  const deadline = Date.now() + seconds * 1_000 * patience;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error("it does not come about");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Waits until nothing is left to be done in the bucket. */
export async function idle({ client }: TestSquashd, seconds = 20): Promise<void> {
  await until(async () => (await client.bucket()).queued === 0, seconds);
}

/** Waits until a squashd that was started has compared all with the bucket. */
export async function synced({ client }: TestSquashd): Promise<void> {
  await until(async () => (await client.bucket()).last_sync !== null);
}

/** What a command in a sandbox prints; it must succeed. */
export async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  if (exit_code !== 0) throw new Error(`"${command}" ended with ${exit_code}: ${stderr}`);
  return stdout;
}

/** Puts a module into a squashd's folder that has one file, /opt/<name>, of random bytes. Returns that file's digest. */
export function randomModule({ dataDir }: { readonly dataDir: string }, name: string, bytes: number): string {
  const folder = join(dataDir, "modules");
  mkdirSync(folder, { recursive: true });
  const root = join(dataDir, `${name}.root`);
  mkdirSync(join(root, "opt"), { recursive: true });
  const content = randomBytes(bytes);
  writeFileSync(join(root, "opt", name), content);
  // of the format that nothing is converted to afterwards
  execFileSync("mkfs.erofs", ["--all-root", join(folder, `${name}.erofs`), root], { stdio: "ignore" });
  rmSync(root, { recursive: true });
  trustByHand(folder, name);
  return sha256Of(content);
}

/** Files of a squashd that are on their way from the bucket or were placed by halves; none should be left by what has failed for good. */
export function halfPlaced({ dataDir }: TestSquashd): string[] {
  const named = (folder: string): string[] =>
    readdirSync(join(dataDir, folder), { encoding: "utf8" }).map((name) => `${folder}/${name}`);
  return [...named("modules"), ...named("snapshots")].filter(
    (path) => !/^modules\/[^/]+\.(squashfs|erofs|manifest\.json)$|^snapshots\/[0-9a-f]{32}\.(erofs|seal)$/.test(path),
  );
}
