import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { repositoryRoot } from "./root.js";

/** How a command line ended. */
export interface Ended {
  /** 128+N where a signal ended it is for shells; here it is null */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command line that runs; `said` is what it wrote to standard error so far. */
export interface Running {
  readonly child: ChildProcess;
  readonly said: () => string;
  readonly ended: Promise<Ended>;
}

/** The two ways to squashd's own verbs. */
export const commandLines = {
  squashd: join(repositoryRoot, "daemon/dist/main.js"),
  sq: join(repositoryRoot, "bin/sq"),
} as const;

/** Starts `squashd` or `sq` with only these settings. */
export function startCommand(
  program: keyof typeof commandLines,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Running {
  const child = spawn(process.execPath, [commandLines[program], ...args], {
    env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise<Ended>((settle, reject) => {
    child.on("error", reject);
    child.on("close", (status) => settle({ status, stdout, stderr }));
  });
  return { child, said: () => stderr, ended };
}

/** Runs `squashd` or `sq` to its end. */
export function runCommand(...of: Parameters<typeof startCommand>): Promise<Ended> {
  return startCommand(...of).ended;
}
