import { SquashError } from "@squash/sdk/errors";
import type { BuildJob, MkbaseJob } from "@squash/sdk/protocol";
import type { JobPlan } from "../core/jobs.js";
import { allowedPath } from "./allowed-path.js";
import { buildBusybox } from "./bases/busybox.js";
import { buildDebian } from "./bases/debian.js";
import { baseName, buildFromDirectory } from "./bases/from-dir.js";
import { buildFromTarball } from "./bases/tarball.js";
import { convertModule } from "./convert.js";
import { planFromOci } from "./job-oci.js";
import { builds, type JobWorld, type Plan } from "./job-plan.js";
import { planPreset } from "./job-preset.js";
import { planFromSandbox } from "./job-sandbox.js";
import { checkModuleName } from "./module-name.js";
import { promotion } from "./promote.js";

type Request<Kind extends BuildJob["kind"]> = Extract<BuildJob, { kind: Kind }>;

/** Every kind of job: checks a request, and says how it is done. A new kind is a line here, a type in the protocol, and a schema. */
const kinds: {
  readonly [Kind in BuildJob["kind"]]: (request: Request<Kind>, world: JobWorld) => Plan | Promise<Plan>;
} = {
  mkbase: (request, world) => {
    const name = request.name === undefined ? `000-base-${request.base}` : baseName(request.name);
    const source = sourceOf(request);
    return builds({ ...request, name, builder: `mkbase ${request.base}` }, world, (options) => {
      if (source !== null) return buildFromTarball({ ...options, ...source });
      if (request.base === "busybox") return buildBusybox(options);
      const { release, packages } = request;
      return buildDebian({ ...options, ...(release && { release }), ...(packages && { packages }) });
    });
  },
  "from-dir": async (request, world) => {
    const path = await allowedPath("directory", request.path, world.buildDirs);
    return builds({ ...request, builder: "mkmod from-dir" }, world, (options) => buildFromDirectory(path, options));
  },
  "from-tar": (request, world) => {
    const { url, sha256 } = request;
    return builds({ ...request, builder: "mkmod from-tar" }, world, (options) =>
      buildFromTarball({ ...options, url, sha256 }),
    );
  },
  "from-oci": planFromOci,
  "from-sandbox": planFromSandbox,
  preset: planPreset,
  convert: (request, world) => {
    checkModuleName(request.name);
    return { module: request.name, run: (context) => convertModule(request, world, context) };
  },
  promote: async (request, world) => {
    const { wanted, build } = await promotion(request, world);
    const plan = builds(wanted, world, build);
    const release = world.snapshots.keep({ id: request.sandbox, label: request.snapshot });
    return { ...plan, release: () => Promise.resolve(release()) };
  },
};

/** How a job is done. Throws `invalid_request`, `module_exists`. */
export async function planJob(request: BuildJob, world: JobWorld): Promise<JobPlan> {
  const plan = kinds[request.kind] as (request: BuildJob, world: JobWorld) => Plan | Promise<Plan>;
  return { kind: request.kind, ...(await plan(request, world)) };
}

function sourceOf({ base, url, sha256, release, packages }: MkbaseJob): { url: string; sha256: string } | null {
  const isArchive = base === "alpine" || base === "ubuntu" || base === "void";
  if (base !== "debian" && (release !== undefined || packages !== undefined))
    throw new SquashError(
      "invalid_request",
      `Cannot make a base: release and packages are for debian, not for ${base}`,
    );
  if (isArchive && url !== undefined && sha256 !== undefined) return { url, sha256 };
  if (isArchive || url !== undefined || sha256 !== undefined) {
    const hint = isArchive
      ? `${base} needs url and sha256 of a root file system`
      : `${base} takes no url and no sha256`;
    throw new SquashError("invalid_request", `Cannot make a base: ${hint}`);
  }
  return null;
}
