import { SquashError } from "@squash/sdk/errors";
import type { CreateSandbox, ExecRequest, ExecResult, NetworkRequest } from "@squash/sdk/protocol";
import type { Captures } from "../core/captures.js";
import type { JobPlan } from "../core/jobs.js";
import type { Modules } from "../core/modules.js";
import type { BaseOptions } from "./bases/base.js";
import type { DirectoryCatalog } from "./catalog.js";
import { checkModuleName, moduleFormats, type ModuleFormat } from "./module-name.js";
import type { ModuleManifest } from "./pack.js";
import type { SnapshotSource } from "./promote.js";

/** What jobs work with. */
export interface JobWorld {
  readonly catalog: DirectoryCatalog;
  readonly modules: Modules;
  readonly dataDir: string;
  readonly sandboxes: BuildSandboxes;
  readonly captures: Pick<Captures, "take" | "takeModule">;
  readonly snapshots: SnapshotSource;
  /** directories below which the API may make modules of directories */
  readonly buildDirs: readonly string[];
  /** images that are made where a job does not say which; @default all */
  readonly formats?: readonly ModuleFormat[];
}

export type Plan = Pick<JobPlan, "module" | "run" | "made" | "release">;

/** The sandboxes of this machine, as builders need them. */
export interface BuildSandboxes {
  create(request: CreateSandbox, signal: AbortSignal): Promise<unknown>;
  exec(id: string, request: ExecRequest, signal: AbortSignal): Promise<ExecResult>;
  setNetwork(id: string, request: NetworkRequest): Promise<unknown>;
  destroy(id: string): Promise<void>;
  /** Throws `sandbox_not_found`. */
  find(id: string): unknown;
}

/** What a module is to be. */
export interface WantedModule {
  readonly name: string;
  readonly builder: string;
  readonly replace?: boolean;
  readonly formats?: readonly ModuleFormat[];
  readonly requires?: readonly string[];
  readonly conflicts?: readonly string[];
}

/** The way of every builder: nobody else changes the module meanwhile, and no sandbox loses it. Throws `invalid_request`, `module_exists`. */
export function builds(
  wanted: WantedModule,
  world: JobWorld,
  build: (options: BaseOptions) => Promise<ModuleManifest>,
): Plan {
  const { name, builder, replace = false, requires = [], conflicts = [] } = wanted;
  const { catalog, dataDir } = world;
  checkWanted(wanted, world);
  return {
    module: name,
    run: ({ signal, progress }) =>
      catalog.reserve(name, "built", async () => {
        checkWanted(wanted, world);
        const formats = wanted.formats ?? world.formats ?? moduleFormats;
        const commit = (place: () => Promise<void>): Promise<void> => putInPlace(wanted, world, place);
        const about = { name, builder, formats, force: replace, requires, conflicts };
        await recordDigests(world, await build({ ...about, dataDir, signal, progress, commit }));
      }),
  };
}

/** Throws `invalid_request` for names that cannot be, `module_exists` for one that is taken and not to be replaced. */
export function checkWanted({ name, replace, requires = [], conflicts = [] }: WantedModule, world: JobWorld): void {
  for (const each of [name, ...requires, ...conflicts]) checkModuleName(each);
  if (replace === true || world.catalog.imagesOf(name).length === 0) return;
  const hint = "replace it (--replace) or choose another name";
  throw new SquashError("module_exists", `Cannot make module "${name}": there is one of that name; ${hint}`);
}

/** Puts a module in place while nobody can begin to use it; it must be reserved. Throws `module_exists`, `module_in_use`. */
export function putInPlace(wanted: WantedModule, world: JobWorld, place: () => Promise<void>): Promise<void> {
  const { name, replace = false } = wanted;
  const { catalog, modules } = world;
  return replace ? modules.replace(name, place) : catalog.close(name, () => checkWanted(wanted, world), place);
}

/** Keeps digests that are known, so that nobody reads the images for them. */
export async function recordDigests({ catalog }: JobWorld, { files }: ModuleManifest): Promise<void> {
  for (const [file, { sha256 }] of Object.entries(files)) await catalog.digests.record(file, sha256);
}
