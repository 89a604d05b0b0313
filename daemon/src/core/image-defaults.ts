import type { ExecRequest } from "@squash/sdk/protocol";

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

/** What of a module's manifest matters here. */
interface WithDefaults {
  readonly defaults?: ImageDefaults;
}

/**
 * A request with what the modules of a stack, topmost first, say where the request says nothing. Of directory and user the topmost word
 * counts, of the environment that on each variable.
 */
export function execDefaults(manifests: readonly WithDefaults[], request: ExecRequest): ExecRequest {
  const defaults = manifests.flatMap((manifest) => manifest.defaults ?? []);
  const workdir = request.workdir ?? defaults.map((each) => each.workdir).find((each) => each !== "");
  const user = request.user ?? defaults.map((each) => each.user).find((each) => each !== "");
  const env = Object.fromEntries(
    [...defaults.toReversed().map((each) => each.env), request.env ?? {}].flatMap((each) => Object.entries(each)),
  );
  return {
    ...request,
    ...(workdir === undefined ? {} : { workdir }),
    ...(user === undefined ? {} : { user }),
    ...(Object.keys(env).length === 0 ? {} : { env }),
  };
}
