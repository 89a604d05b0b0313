import type { ExecRequest } from "@squash/sdk/protocol";

/** what a request may have is not counted here; both together are less than init takes */
const maxVariables = 64;
const maxEnvLength = 32_768;

/** How the programs of a module are meant to be started; what an image says of itself. Empty means that it says nothing. */
export interface ImageDefaults {
  readonly env: Readonly<Record<string, string>>;
  /** absolute path; "" for none */
  readonly workdir: string;
  /** name or number; "" for none */
  readonly user: string;
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
}

/** What may say such things: a module, its manifest, or the record of a sandbox. */
export interface WithDefaults {
  readonly defaults?: ImageDefaults;
}

/**
 * What the modules of a stack, topmost first, say together; undefined where none says anything. Of directory, user and program the topmost
 * word counts, of the environment that on each variable, of which the first 64 and 32 KiB are kept.
 */
export function mergeDefaults(modules: readonly WithDefaults[]): ImageDefaults | undefined {
  const said = modules.flatMap(({ defaults }) => defaults ?? []);
  if (said.length === 0) return undefined;
  const env = new Map<string, string>();
  let length = 0;
  for (const [name, value] of said.flatMap((each) => Object.entries(each.env))) {
    if (env.has(name)) continue;
    length += name.length + Buffer.byteLength(value);
    if (env.size < maxVariables && length <= maxEnvLength) env.set(name, value);
  }
  const program = said.find(({ entrypoint, cmd }) => entrypoint.length + cmd.length > 0);
  return {
    env: Object.fromEntries(env),
    workdir: said.map(({ workdir }) => workdir).find((workdir) => workdir !== "") ?? "",
    user: said.map(({ user }) => user).find((user) => user !== "") ?? "",
    entrypoint: program?.entrypoint ?? [],
    cmd: program?.cmd ?? [],
  };
}

/**
 * A request with what the modules of a stack, topmost first, say where the request says nothing. Of the environment the request's word counts
 * most, then `injected`.
 */
export function execDefaults(
  modules: readonly WithDefaults[],
  request: ExecRequest,
  injected: Readonly<Record<string, string>> = {},
): ExecRequest {
  const defaults = mergeDefaults(modules);
  const env = { ...defaults?.env, ...injected, ...request.env };
  const { workdir = "", user = "" } = defaults ?? {};
  return {
    ...request,
    ...(request.workdir === undefined && workdir !== "" ? { workdir } : {}),
    ...(request.user === undefined && user !== "" ? { user } : {}),
    ...(Object.keys(env).length === 0 ? {} : { env }),
  };
}
