import { rename, rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { PromoteJob } from "@squash/sdk/protocol";
import { mergeDefaults, type ImageDefaults } from "../core/image-defaults.js";
import type { MergeOutput } from "../core/image-merge.js";
import type { ModuleCatalog } from "../core/ports.js";
import { stackOrder } from "../core/stack.js";
import type { BaseOptions } from "./bases/base.js";
import { Cleanup } from "./cleanup.js";
import { checkModuleName, type ModuleFormat } from "./module-name.js";
import { buildSquashfs } from "./squashfs-child.js";
import { draftPath, publish, type ModuleManifest } from "./pack.js";

/** Where files of snapshots come from; core/promotions.ts has what each does. */
export interface SnapshotSource {
  layersOf(snapshot: { readonly id: string; readonly label: string }): readonly string[];
  /** Keeps it from being removed by the retention until the answer is called. */
  keep(snapshot: { readonly id: string; readonly label: string }): () => void;
  write(
    snapshot: { readonly id: string; readonly label: string },
    output: MergeOutput,
    signal: AbortSignal,
  ): Promise<void>;
}

interface Promotion {
  readonly wanted: {
    readonly name: string;
    readonly builder: string;
    readonly replace: boolean;
    readonly formats: readonly ModuleFormat[];
    readonly requires: readonly string[];
  };
  readonly build: (options: BaseOptions) => Promise<ModuleManifest>;
}

/**
 * How a snapshot becomes a module that stands on the modules which the snapshot stands on. Its image is an erofs one, at once, unless the request
 * says otherwise: squashfs takes longer, and does not hold all. Throws `sandbox_not_found`, `snapshot_not_found`, `module_not_found`,
 * `module_invalid`, `invalid_request`.
 */
export async function promotion(
  request: PromoteJob,
  { snapshots, catalog }: { readonly snapshots: SnapshotSource; readonly catalog: ModuleCatalog },
): Promise<Promotion> {
  const { sandbox: id, snapshot: label, name, replace = false, formats = ["erofs"] } = request;
  checkModuleName(name);
  const layers = snapshots.layersOf({ id, label });
  refuseBelow(name, layers);
  const modules = await Promise.all(layers.map((layer) => catalog.resolve(layer)));
  const defaults = mergeDefaults(modules);
  return {
    wanted: { name, builder: `promote ${id}@${label}`, replace, formats, requires: layers },
    build: (options) => build({ id, label }, snapshots, { ...options, ...withDefaults(defaults) }),
  };
}

async function build(
  snapshot: { readonly id: string; readonly label: string },
  snapshots: SnapshotSource,
  options: BaseOptions,
): Promise<ModuleManifest> {
  const { name, dataDir, progress, signal = new AbortController().signal } = options;
  await using cleanup = new Cleanup();
  const raw = draftPath(join(dataDir, "modules"), "promoted.erofs");
  const remove = (): Promise<void> => rm(raw, { force: true });
  cleanup.defer(remove);
  progress("merging the images of the snapshot", 0);
  await snapshots.write(snapshot, { path: relative(dataDir, raw), remove }, signal);
  // the erofs image comes last, hence it may take what the other one is made of
  return await publish(options, async (format, draft) => {
    if (format === "squashfs") await buildSquashfs({ image: raw, name, dataDir, target: draft }, { signal, progress });
    else await rename(raw, draft);
    progress("putting it in place", 0.8);
  });
}

/** Where it would lie below a module that it stands on, its files would not be seen. */
function refuseBelow(name: string, layers: readonly string[]): void {
  if (layers.includes(name))
    throw new SquashError("invalid_request", `Cannot make module "${name}": the snapshot itself stands on it`);
  const [top] = stackOrder([name, ...layers]);
  if (top === name) return;
  const hint = `needed is a number above that of "${top}", on which the snapshot stands`;
  throw new SquashError("invalid_request", `Cannot make module "${name}": it would lie below; ${hint}`);
}

function withDefaults(defaults: ImageDefaults | undefined): { readonly defaults?: ImageDefaults } {
  return defaults === undefined ? {} : { defaults };
}
