import { lstat, rename, rm, utimes } from "node:fs/promises";
import { join, relative } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { scratchDirectory } from "./bases/base.js";
import type { TaskContext } from "./build-task.js";
import type { DirectoryCatalog } from "./catalog.js";
import { Cleanup } from "./cleanup.js";
import { makeWorkshop } from "./confined-tool.js";
import type { JobWorld } from "./job-plan.js";
import { writeManifest, type ModuleManifest } from "./manifest.js";
import { appendTrailer } from "./module-trailer.js";
import type { ModuleFormat } from "./module-name.js";
import { draftPath, erofsOfSquashfs, finish } from "./pack.js";
import { syncDirectory } from "./placing.js";
import { buildSquashfs } from "./squashfs-child.js";
import { unpackBounds } from "./squashfs-survey.js";

const deadlineMs = 30 * 60_000;

interface Wanted {
  readonly name: string;
  readonly format: ModuleFormat;
}

type Context = Pick<TaskContext, "progress" | "signal">;

/** What a conversion works with. */
type ConvertWorld = Pick<JobWorld, "catalog" | "captures" | "dataDir">;

/**
 * Makes the other image of a module, with the same files; the one that there is must be trusted, and the manifest then lists both. Throws
 * `module_not_found`, `module_exists` where there is one already, `module_invalid`, `module_in_use`, `build_failed`, `cancelled`.
 */
export async function convertModule(wanted: Wanted, world: ConvertWorld, context: Context): Promise<void> {
  const { name, format } = wanted;
  const { catalog } = world;
  await catalog.reserve(name, "converted", async () => {
    refuseUseless(catalog, wanted);
    const before = await trustedManifest(catalog, name, `${name}.${format === "erofs" ? "squashfs" : "erofs"}`);
    await using cleanup = new Cleanup();
    context.progress(`making the ${format} image`, 0);
    const draft = draftPath(catalog.directory, `${name}.${format}`);
    cleanup.defer(() => rm(draft, { force: true }));
    await (format === "erofs" ? makeErofs : makeSquashfs)(name, draft, world, context);
    await appendTrailer(draft, before);
    if (format === "squashfs") await makeOlder(draft, join(catalog.directory, `${name}.erofs`));
    context.progress("putting it in place", 0.9);
    const file = await finish(draft);
    context.signal.throwIfAborted();
    await catalog.close(
      name,
      () => refuseChanged(catalog, name, before),
      async () => {
        // a manifest that lists a file which is not there does no harm, the other way round it would
        const files = { ...before.files, [`${name}.${format}`]: file };
        await writeManifest(catalog.directory, { ...before, files });
        await rename(draft, join(catalog.directory, `${name}.${format}`));
        await syncDirectory(catalog.directory);
      },
    );
    await catalog.digests.record(`${name}.${format}`, file.sha256);
  });
}

async function makeErofs(
  name: string,
  draft: string,
  { catalog, dataDir }: ConvertWorld,
  { signal }: Context,
): Promise<void> {
  await using cleanup = new Cleanup();
  const image = join(catalog.directory, `${name}.squashfs`);
  const workshop = await makeWorkshop(await scratchDirectory(dataDir, cleanup), { input: image });
  await erofsOfSquashfs(workshop, { image, name }, draft, { deadlineMs, signal });
}

/** The kernel alone reads whatever erofs image there is; what a confined process of sq-host copies out of it is read by a child of squashd. */
async function makeSquashfs(
  name: string,
  draft: string,
  { catalog, captures, dataDir }: ConvertWorld,
  context: Context,
): Promise<void> {
  await using cleanup = new Cleanup();
  const image = join(await scratchDirectory(dataDir, cleanup), "captured.erofs");
  const { bytes: sizeLimit } = await unpackBounds(dataDir);
  const output = { image: relative(dataDir, image), remove: () => rm(image, { force: true }), sizeLimit };
  await captures.takeModule(await catalog.resolve(name), output, context.signal);
  await buildSquashfs({ image, name, dataDir, target: draft }, context);
}

/** An erofs image that is older than the squashfs one would count as left from before, and not be used. */
async function makeOlder(draft: string, other: string): Promise<void> {
  const seconds = Math.floor((await lstat(other)).mtimeMs / 1000);
  await utimes(draft, seconds, seconds);
}

function refuseUseless(catalog: DirectoryCatalog, { name, format }: Wanted): void {
  const has = catalog.imagesOf(name);
  if (has.length === 0) throw new SquashError("module_not_found", `Cannot find module "${name}"`);
  if (has.includes(format))
    throw new SquashError("module_exists", `Cannot convert module "${name}": it has a ${format} image already`);
}

async function trustedManifest(catalog: DirectoryCatalog, name: string, file: string): Promise<ModuleManifest> {
  const manifest = catalog.manifests.of(name);
  const stat = await lstat(join(catalog.directory, file), { bigint: true });
  if (manifest !== null && stat.isFile()) {
    if (manifest.files[file]?.sha256 === (await catalog.digests.of(file, stat))) return manifest;
  }
  const hint = `if you put it there and trust it, run "sq module trust ${name}"`;
  throw new SquashError(
    "module_invalid",
    `Cannot convert module "${name}": its image is not that of its manifest; ${hint}`,
  );
}

/** Somebody on the machine may have built it anew meanwhile. */
function refuseChanged(catalog: DirectoryCatalog, name: string, before: ModuleManifest): void {
  if (catalog.manifests.of(name) === before) return;
  throw new SquashError("module_in_use", `Cannot convert module "${name}": it was replaced meanwhile; try again`);
}
