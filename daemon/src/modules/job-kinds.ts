import { realpath } from "node:fs/promises";
import { sep } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { JobRequest, MkbaseJob } from "@squash/sdk/protocol";
import type { JobPlan } from "../core/jobs.js";
import type { Modules } from "../core/modules.js";
import type { BaseOptions } from "./bases/base.js";
import { buildBusybox } from "./bases/busybox.js";
import { buildDebian } from "./bases/debian.js";
import { baseName, buildFromDirectory } from "./bases/from-dir.js";
import { buildFromTarball } from "./bases/tarball.js";
import type { DirectoryCatalog } from "./catalog.js";
import { convertModule } from "./convert.js";
import { checkModuleName, moduleFormats, type ModuleFormat } from "./module-name.js";
import type { ModuleManifest } from "./pack.js";
import { promotion, type SnapshotSource } from "./promote.js";

/** What jobs work with. */
export interface JobWorld {
  readonly catalog: DirectoryCatalog;
  readonly modules: Modules;
  readonly snapshots: SnapshotSource;
  readonly dataDir: string;
  /** directories below which the API may make modules of directories */
  readonly buildDirs: readonly string[];
  /** images that are made where a job does not say which; @default all */
  readonly formats?: readonly ModuleFormat[];
}

type Request<Kind extends JobRequest["kind"]> = Extract<JobRequest, { kind: Kind }>;
type Plan = Pick<JobPlan, "module" | "run" | "release">;

/** Every kind of job: checks a request, and says how it is done. A new kind is a line here, a type in the protocol, and a schema. */
const kinds: {
  readonly [Kind in JobRequest["kind"]]: (request: Request<Kind>, world: JobWorld) => Plan | Promise<Plan>;
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
    const path = await allowedDirectory(request.path, world.buildDirs);
    return builds({ ...request, builder: "mkmod from-dir" }, world, (options) => buildFromDirectory(path, options));
  },
  "from-tar": (request, world) => {
    const { url, sha256 } = request;
    return builds({ ...request, builder: "mkmod from-tar" }, world, (options) =>
      buildFromTarball({ ...options, url, sha256 }),
    );
  },
  convert: (request, { catalog, dataDir }) => {
    checkModuleName(request.name);
    return {
      module: request.name,
      run: (context) => convertModule(catalog, request, { dataDir, ...context }),
    };
  },
  promote: async (request, world) => {
    const { wanted, build } = await promotion(request, world);
    const plan = builds(wanted, world, build);
    const release = world.snapshots.keep({ id: request.sandbox, label: request.snapshot });
    return { ...plan, release: () => Promise.resolve(release()) };
  },
};

/** How a job is done. Throws `invalid_request`, `module_exists`. */
export async function planJob(request: JobRequest, world: JobWorld): Promise<JobPlan> {
  const plan = kinds[request.kind] as (request: JobRequest, world: JobWorld) => Plan | Promise<Plan>;
  return { kind: request.kind, ...(await plan(request, world)) };
}

interface Wanted {
  readonly name: string;
  readonly builder: string;
  readonly replace?: boolean;
  readonly formats?: readonly ModuleFormat[];
  readonly requires?: readonly string[];
  readonly conflicts?: readonly string[];
}

/** The way of every builder: nobody else changes the module meanwhile, and no sandbox loses it. Throws `invalid_request`, `module_exists`. */
export function builds(
  wanted: Wanted,
  world: JobWorld,
  build: (options: BaseOptions) => Promise<ModuleManifest>,
): Plan {
  const { name, builder, replace = false, requires = [], conflicts = [] } = wanted;
  const { catalog, modules, dataDir } = world;
  for (const each of [name, ...requires, ...conflicts]) checkModuleName(each);
  refuseExisting();
  return {
    module: name,
    run: ({ signal, progress }) =>
      catalog.reserve(name, "built", async () => {
        refuseExisting();
        const formats = wanted.formats ?? world.formats ?? moduleFormats;
        const commit = (place: () => Promise<void>): Promise<void> =>
          replace ? modules.replace(name, place) : catalog.close(name, refuseExisting, place);
        const about = { name, builder, formats, force: replace, requires, conflicts };
        const { files } = await build({ ...about, dataDir, signal, progress, commit });
        for (const [file, { sha256 }] of Object.entries(files)) await catalog.digests.record(file, sha256);
      }),
  };

  function refuseExisting(): void {
    if (replace || catalog.imagesOf(name).length === 0) return;
    const hint = "replace it (--replace) or choose another name";
    throw new SquashError("module_exists", `Cannot make module "${name}": there is one of that name; ${hint}`);
  }
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

/** The real path of a directory that the operator opened. Throws `invalid_request`, with the same words whatever is there. */
async function allowedDirectory(path: string, buildDirs: readonly string[]): Promise<string> {
  const real = await realpath(path).catch(() => null);
  for (const allowed of buildDirs) {
    const root = await realpath(allowed).catch(() => null);
    if (real !== null && root !== null && `${real}${sep}`.startsWith(root === sep ? sep : `${root}${sep}`)) return real;
  }
  const hint = "it is no directory below one of SQUASH_BUILD_DIRS, which the operator sets";
  throw new SquashError("invalid_request", `Cannot use directory ${JSON.stringify(path)}: ${hint}`);
}
