import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, linkSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Client, CreateOptions, ExecOptions, Sandbox } from "@squash/sdk";
import { trustByHand } from "./modules.js";
import { repositoryRoot } from "./root.js";

const source = join(repositoryRoot, "test/probe/probe.c");
const cache = join(repositoryRoot, "build/test-probe");
const inside = "/opt/probe";
const controlTimeoutMs = 20_000;

/** The program that attacks, on the host. Built when it is not there yet, or when its source is another one. */
export function probeProgram(): string {
  return `${build()}.probe`;
}

/** Puts the layer with the attacking program at `/opt/probe` into a folder of modules, as `200-probe`. */
export function ensureProbeModule(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const path = build();
  for (const format of ["squashfs", "erofs"]) {
    const target = join(folder, `200-probe.${format}`);
    if (existsSync(target)) continue;
    try {
      linkSync(`${path}.${format}`, target);
    } catch {
      copyFileSync(`${path}.${format}`, target); // another filesystem
    }
  }
  trustByHand(folder, "200-probe");
}

function build(): string {
  const path = join(cache, createHash("sha256").update(readFileSync(source)).digest("hex").slice(0, 16));
  if (existsSync(`${path}.squashfs`) && existsSync(`${path}.erofs`)) return path;
  const root = `${path}.root-${process.pid}`;
  mkdirSync(join(root, "opt"), { recursive: true });
  const headers = [
    "/usr/include",
    `/usr/include/${execFileSync("gcc", ["-print-multiarch"], { encoding: "utf8" }).trim()}`,
  ];
  const flags = [
    "-static",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    ...headers.flatMap((folder) => ["-idirafter", folder]),
  ];
  execFileSync("musl-gcc", [...flags, "-o", join(root, inside), source], { stdio: ["ignore", "ignore", "inherit"] });
  const draft = `${path}.draft-${process.pid}`;
  const quiet = { stdio: "ignore" } as const;
  execFileSync("mksquashfs", [root, draft, "-noappend", "-quiet", "-no-progress", "-all-root"], quiet);
  execFileSync("mkfs.erofs", ["-zlz4", "--all-root", `${draft}.erofs`, root], quiet);
  renameSync(join(root, inside), `${path}.probe`);
  rmSync(root, { recursive: true });
  renameSync(`${draft}.erofs`, `${path}.erofs`);
  renameSync(draft, `${path}.squashfs`);
  return path;
}

/** A sandbox with the attacking program in it. */
export function createTarget(client: Client, options: CreateOptions = {}): Promise<Sandbox> {
  return client.create({ layers: ["000-base-test", "200-probe"], ...options });
}

/** Tries an attack inside; returns its verdict, "escaped: …" or "refused: ERRNO", or what else became of it. */
export async function attack(
  sandbox: Sandbox,
  text: string,
  options: ExecOptions & { readonly program?: string } = {},
): Promise<string> {
  const { program = inside, ...rest } = options;
  const result = await sandbox.exec([program, ...text.split(" ")], { timeout: 20, ...rest });
  if (result.oom_killed) return "killed: out of memory";
  return result.stdout.trim() || `status ${result.exit_code}: ${result.stderr.trim()}`;
}

export interface ControlOptions {
  /** namespaces for it alone, in unshare(1)'s words; a mount namespace is always among them */
  readonly unshare?: readonly string[];
  /** a shell command that goes before, in the same namespaces */
  readonly prepare?: string;
  /** the program, when it is not the one from the source tree */
  readonly program?: string;
  readonly uid?: number;
  /** a further descriptor that it inherits */
  readonly descriptor?: number;
}

/** Runs the same attack on the host as root, where nothing protects but a mount namespace keeps it from leaving traces. */
export function control(text: string, options: ControlOptions = {}): string {
  const { unshare = [], prepare = ":", program = probeProgram(), uid, descriptor } = options;
  const command = ["sh", "-c", `${prepare} && exec "$@"`, "sh", program, ...text.split(" ")];
  const who = uid === undefined ? [] : ["setpriv", "--reuid", String(uid), "--regid", String(uid), "--clear-groups"];
  const { stdout, stderr, status, signal } = spawnSync("unshare", ["--mount", ...unshare, ...who, ...command], {
    encoding: "utf8",
    timeout: controlTimeoutMs,
    killSignal: "SIGKILL",
    stdio: ["ignore", "pipe", "pipe", ...(descriptor === undefined ? [] : [descriptor])],
  });
  return stdout.trim() || `status ${status ?? signal}: ${stderr.trim()}`;
}

/** A folder for a control, gone at the end of the block. */
export function scratch(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "sqt-scratch-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
