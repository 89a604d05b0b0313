import { SquashError } from "@squash/sdk/errors";
import type { CreateSandbox, ExecRequest, ForkRequest } from "@squash/sdk/protocol";

/** 1–64 of A–Z a–z 0–9 `_` `-`, not starting or ending with `-`. */
export const idPattern = "^[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9_])?$";

/** Names of modules and snapshots: 1–128 of A–Z a–z 0–9 `_` `-` `.`, not starting with `-`, not "." or "..". */
export const labelPattern = "^(?!\\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,127}$";

/** Names of modules, here and in the bucket: 1–128 of A–Z a–z 0–9 `_` `-` `.`, not beginning with `-` or `.`. */
export const moduleNamePattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$";

/** Bounds that the schemas, the checks and the documentation share. */
export const bounds = {
  layers: 120,
  owner: 256,
  task: 4096,
  cpu: { min: 0.01, max: 1024 },
  memoryMb: { min: 16, max: 1_048_576 },
  pids: { min: 8, max: 1_000_000 },
  lifetimeS: { min: 0, max: 315_360_000 },
  cmdBytes: 65_536,
  args: 1024,
  workdir: 512,
  timeoutS: { min: 1, max: 3600 },
  env: 256,
  envValue: 65_536,
  envBytes: 131_072,
  user: 32,
  maxUid: 65_535,
  forks: 100,
  keepLast: 256,
  by: 256,
  netEntries: 256,
  netKbit: { min: 64, max: 100_000_000 },
  connectionsPerS: 100_000,
  decisions: { usual: 200, max: 1_000 },
} as const;

const idExpression = new RegExp(idPattern);
const labelExpression = new RegExp(labelPattern);
const moduleNameExpression = new RegExp(moduleNamePattern);
const envName = /^[A-Za-z_][A-Za-z0-9_]*$/;
const userName = /^[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?$/;

/** Whether it can be the label of a snapshot. */
export function isLabel(text: unknown): text is string {
  return typeof text === "string" && labelExpression.test(text);
}

/** Whether it can be the name of a module. */
export function isModuleName(text: unknown): boolean {
  return typeof text === "string" && moduleNameExpression.test(text);
}

/** Whether it can be the id of a sandbox. */
export function isId(text: unknown): text is string {
  return typeof text === "string" && idExpression.test(text);
}

/** Refuses an id that could not be a sandbox's. Throws `sandbox_not_found`, as there can be none of that name. */
export function checkId(id: string): void {
  if (!idExpression.test(id))
    throw new SquashError("sandbox_not_found", `Cannot find sandbox "${id.slice(0, 80)}": not found`);
}

/** Checks what a schema cannot say and brings the request into one form: layers as an array. Throws `invalid_request`. */
export function checkCreate(request: CreateSandbox): CreateSandbox {
  if (!idExpression.test(request.id)) {
    throw invalid("id", "must be 1 to 64 letters, digits, _ or -, and neither start nor end with -");
  }
  return { ...request, layers: layersOf(request.layers) };
}

/** Throws `invalid_request` where a fork is to have a name and there is to be more than one. */
export function checkFork(request: ForkRequest): ForkRequest {
  if (request.target_id !== undefined && request.count !== undefined)
    throw invalid("count", "cannot be said beside target_id, which is the id of the one fork");
  return request;
}

function layersOf(layers: CreateSandbox["layers"]): string[] {
  if (layers === undefined) return [];
  const text = typeof layers === "string" ? layers.split(",") : layers;
  const names = text.map((name) => name.trim()).filter((name) => name !== "");
  if (names.length > bounds.layers) throw invalid("layers", `must be at most ${bounds.layers} names`);
  for (const [at, name] of names.entries()) {
    if (!labelExpression.test(name))
      throw invalid("layers", `has "${name.slice(0, 80)}", which cannot be a module's name`);
    if (names.indexOf(name) !== at) throw invalid("layers", `names "${name}" twice`);
  }
  return names;
}

/** Checks what a schema cannot say and brings the request into one form: `timeout` as a number. Throws `invalid_request`. */
export function checkExec(request: ExecRequest): ExecRequest {
  checkCommand(request.cmd);
  if (request.workdir !== undefined) checkWorkdir(request.workdir);
  if (request.env !== undefined) checkEnv(request.env);
  if (request.user !== undefined) checkUser(request.user);
  return request.timeout === undefined ? request : { ...request, timeout: timeoutOf(request.timeout) };
}

function checkCommand(cmd: ExecRequest["cmd"]): void {
  const words = typeof cmd === "string" ? [cmd] : cmd;
  if ((words[0] ?? "").trim() === "") throw invalid("cmd", "is required and must not be empty");
  if (words.length > bounds.args) throw invalid("cmd", `must have at most ${bounds.args} arguments`);
  if (words.some((word) => word.includes("\0"))) throw invalid("cmd", "must not contain a zero character");
  const bytes = words.reduce((sum, word) => sum + Buffer.byteLength(word), 0);
  if (bytes > bounds.cmdBytes) throw invalid("cmd", "must be at most 64 KiB; larger input fits into stdin");
}

function checkWorkdir(workdir: string): void {
  if (
    !workdir.startsWith("/") ||
    workdir.length > bounds.workdir ||
    workdir.includes("\0") ||
    workdir.split("/").includes("..")
  ) {
    throw invalid("workdir", `must be an absolute path of at most ${bounds.workdir} characters without ".."`);
  }
}

function checkEnv(env: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(env)) {
    if (!envName.test(name) || name.length > 256) {
      throw invalid(
        "env",
        `has the name "${name.slice(0, 80)}"; a name is letters, digits and _, and starts with no digit`,
      );
    }
    if (value.includes("\0")) throw invalid(`env.${name}`, "must not contain a zero character");
  }
  const bytes = Object.entries(env).reduce((sum, [name, value]) => sum + name.length + Buffer.byteLength(value), 0);
  if (bytes > bounds.envBytes) throw invalid("env", "must be at most 128 KiB in all");
}

function checkUser(user: string | number): void {
  const isUid = typeof user === "number" || /^\d+$/.test(user);
  if (isUid ? !(Number(user) <= bounds.maxUid) : !userName.test(user)) {
    throw invalid("user", `must be a user's name or a number from 0 to ${bounds.maxUid}`);
  }
}

/** Out of range is not an error: clients ask for "as long as you allow". */
function timeoutOf(timeout: number | string): number {
  const seconds =
    typeof timeout === "number" ? timeout : /^\s*\d+(\.\d+)?\s*$/.test(timeout) ? Number(timeout) : Number.NaN;
  if (!Number.isFinite(seconds)) throw invalid("timeout", "must be a number of seconds");
  return Math.min(bounds.timeoutS.max, Math.max(bounds.timeoutS.min, seconds));
}

function invalid(field: string, problem: string): SquashError {
  return new SquashError("invalid_request", `Cannot accept the request: ${field} ${problem}`, { details: { field } });
}
