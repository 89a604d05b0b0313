import { SquashError } from "@squash/sdk/errors";
import type { ExecResult } from "@squash/sdk/protocol";
import { pause } from "../../core/pause.js";
import type { BuildSandboxes } from "../job-plan.js";
import { findManagers, managerOf, type PackageManager } from "./package-manager.js";

const installTimeoutS = 3600;
const pollMs = 2_000;
const maxShown = 160;
const log = "/tmp/.squash-install.log";
const env = { DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C", HOME: "/root" };

export interface InstallContext {
  readonly sandboxes: BuildSandboxes;
  /** of the sandbox */
  readonly id: string;
  readonly signal: AbortSignal;
  readonly progress: (line: string, fraction?: number) => void;
}

/** What installs packages in the sandbox, and the servers that it is set up for. Throws `build_failed` where there is nothing that does. */
export async function findManager(
  context: InstallContext,
): Promise<{ readonly manager: PackageManager; readonly urls: readonly string[] }> {
  const manager = managerOf((await run(context, ["/bin/sh", "-c", findManagers])).stdout);
  if (manager === null)
    throw new SquashError("build_failed", "Cannot install packages: the base has neither apt-get nor apk");
  const { stdout } = await run(context, ["/bin/sh", "-c", manager.showSources]);
  return { manager, urls: manager.parseSources(stdout) };
}

/** Installs packages; tells what the package manager says. Throws `build_failed` with the end of it, `cancelled`. */
export async function install(
  manager: PackageManager,
  packages: readonly string[],
  { settings, ...context }: InstallContext & { readonly settings: readonly string[] },
): Promise<void> {
  for (const { title, argv } of manager.install(packages, settings)) {
    context.progress(title);
    const result = await told(context, argv);
    if (result.exit_code === 0) continue;
    const { stdout } = await run(context, ["tail", "-n", "5", log]);
    const why = result.timed_out ? `it did not end within ${installTimeoutS} s` : printable(stdout, " | ");
    throw new SquashError("build_failed", `Cannot install packages: ${argv[0] ?? ""}: ${why}`);
  }
}

/** Runs a program that shows whether what was installed works. Throws `build_failed`. */
export async function check(context: InstallContext, argv: readonly string[]): Promise<void> {
  const { exit_code: status, stdout, stderr } = await run(context, argv);
  const text = printable(status === 0 ? stdout : stderr, " | ");
  if (status !== 0)
    throw new SquashError("build_failed", `Cannot use what was installed: ${argv.join(" ")} failed: ${text}`);
  context.progress(`it works: ${text.slice(0, maxShown)}`);
}

/** Runs a program with its output in a file, and tells the newest line of it now and then. */
async function told(context: InstallContext, argv: readonly string[]): Promise<ExecResult> {
  const script = 'exec "$@" >"$LOG" 2>&1 </dev/null';
  const running = run(context, ["/bin/sh", "-c", script, "sh", ...argv], { LOG: log });
  const over = new AbortController();
  const end = (): void => over.abort();
  running.then(end, end);
  const polling = follow(context, over.signal);
  const [result] = await Promise.all([running, polling.catch(() => undefined)]);
  return result;
}

/** Tells the newest line of what is written, until it is over. */
async function follow(context: InstallContext, over: AbortSignal): Promise<void> {
  for (let last = ""; ;) {
    await pause(pollMs, over);
    if (over.aborted) return;
    const { stdout } = await run(context, ["tail", "-c", "400", log]);
    const line = printable(stdout.split("\n").findLast((each) => each.trim() !== "") ?? "");
    if (line !== "" && line !== last) context.progress(line);
    last = line;
  }
}

async function run(
  { sandboxes, id, signal }: InstallContext,
  argv: readonly string[],
  more: Readonly<Record<string, string>> = {},
): Promise<ExecResult> {
  const request = { cmd: [...argv], env: { ...env, ...more }, timeout: installTimeoutS, user: "root", workdir: "/" };
  return sandboxes.exec(id, request, signal);
}

/** What a program in a sandbox said, which may be anything, as one line. */
function printable(text: string, divider = " "): string {
  return text
    .trim()
    .split("\n")
    .map((line) => line.replaceAll(/[^\x20-\x7e\u00a0-\uffff]/g, " ").trim())
    .filter((line) => line !== "")
    .join(divider)
    .slice(-4 * maxShown);
}
