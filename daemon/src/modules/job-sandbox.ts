import { join, relative } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { FromSandboxJob } from "@squash/sdk/protocol";
import { stackOrder } from "../core/stack.js";
import { scratchDirectory, type BaseOptions } from "./bases/base.js";
import { buildInChild } from "./build-child.js";
import { Cleanup } from "./cleanup.js";
import { builds, type JobWorld, type Plan } from "./job-plan.js";
import type { ModuleManifest } from "./manifest.js";

/** What a sandbox has written, as a module. Throws `invalid_request`, `module_exists`, `sandbox_not_found`. */
export function planFromSandbox(request: FromSandboxJob, world: JobWorld): Plan {
  const { name, sandbox, snapshot = null, all = false } = request;
  world.sandboxes.find(sandbox);
  const builder = `mkmod from-sandbox ${sandbox}${snapshot === null ? "" : `@${snapshot}`}`;
  return builds({ ...request, name, builder }, world, (options) =>
    packSandbox({ id: sandbox, label: snapshot, all, requires: request.requires ?? null }, world, options),
  );
}

export interface PackedSandbox {
  readonly id: string;
  readonly label: string | null;
  readonly all: boolean;
  /** modules that the new one needs below it; null for those of the sandbox */
  readonly requires: readonly string[] | null;
  /** seconds since 1970: when the sandbox was made, if it makes no difference when things were written in it */
  readonly settleSinceS?: number;
}

/** Makes a module of a sandbox's files in its place in the stack. Throws what capturing and packing them throws. */
export async function packSandbox(
  wanted: PackedSandbox,
  world: JobWorld,
  options: BaseOptions,
): Promise<ModuleManifest> {
  const { id, label, all, settleSinceS = null } = wanted;
  const { dataDir, signal = new AbortController().signal, progress, name } = options;
  await using cleanup = new Cleanup();
  const scratch = await scratchDirectory(dataDir, cleanup);
  const image = join(scratch, "captured.erofs");
  progress("capturing what was written", 0.1);
  const { modules } = await world.captures.take(id, label, { image: relative(dataDir, image), signal });
  const requires = wanted.requires ?? modules;
  refuseBelow(name, requires);
  const { builder, formats, force = false, conflicts = [] } = options;
  const commit = options.commit ?? ((place: () => Promise<void>): Promise<void> => place());
  const about = { name, builder, formats, force, requires, conflicts, dataDir };
  const task = { ...about, kind: "from-layers", image, all, settleSinceS } as const;
  const [manifest] = await buildInChild(task, { signal, progress, commit });
  if (manifest === undefined) throw new Error("a builder made nothing");
  return manifest;
}

/** Files that are changes of what other modules have would be hidden by them. Throws `invalid_request`. */
export function refuseBelow(name: string, requires: readonly string[]): void {
  const [top = ""] = stackOrder([name, ...requires]);
  if (top === name || requires.includes(name)) return;
  throw new SquashError(
    "invalid_request",
    `Cannot make module "${name}": it would lie below "${top}", which its files change; give it a higher number`,
  );
}
