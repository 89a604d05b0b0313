import { lstat, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { scratchDirectory } from "./bases/base.js";
import type { DirectoryCatalog } from "./catalog.js";
import { Cleanup } from "./cleanup.js";
import { makeWorkshop } from "./confined-tool.js";
import { writeManifest, type ModuleManifest } from "./manifest.js";
import { appendTrailer } from "./module-trailer.js";
import type { ModuleFormat } from "./module-name.js";
import { draftPath, erofsOfSquashfs, finish } from "./pack.js";
import { syncDirectory } from "./placing.js";

const deadlineMs = 30 * 60_000;

export interface ConvertOptions {
  readonly dataDir: string;
  readonly progress: (line: string, fraction?: number) => void;
  readonly signal: AbortSignal;
}

/**
 * Makes the erofs image of a module that has a squashfs one, which must be trusted; the manifest then lists both. Throws
 * `module_exists` where there is one already, `module_invalid`, `module_in_use`, `build_failed`, `cancelled`.
 */
export async function convertModule(
  catalog: DirectoryCatalog,
  wanted: { readonly name: string; readonly format: ModuleFormat },
  options: ConvertOptions,
): Promise<void> {
  const { name, format } = wanted;
  await catalog.reserve(name, "converted", async () => {
    refuseUseless(catalog, wanted);
    const source = `${name}.squashfs`;
    const before = await trustedManifest(catalog, name, source);
    await using cleanup = new Cleanup();
    const scratch = await scratchDirectory(options.dataDir, cleanup);
    const image = join(catalog.directory, source);
    const workshop = await makeWorkshop(scratch, { input: image });
    const limits = { deadlineMs, signal: options.signal };
    options.progress("making the erofs image", 0);
    const draft = draftPath(catalog.directory, `${name}.${format}`);
    cleanup.defer(() => rm(draft, { force: true }));
    await erofsOfSquashfs(workshop, { image, name }, draft, limits);
    await appendTrailer(draft, before);
    options.progress("putting it in place", 0.9);
    const file = await finish(draft);
    options.signal.throwIfAborted();
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

function refuseUseless(catalog: DirectoryCatalog, { name, format }: { name: string; format: ModuleFormat }): void {
  const has = catalog.imagesOf(name);
  if (has.length === 0) throw new SquashError("module_not_found", `Cannot find module "${name}"`);
  if (has.includes(format))
    throw new SquashError("module_exists", `Cannot convert module "${name}": it has a ${format} image already`);
  if (format === "erofs") return;
  const hint = "an erofs image can be read by the kernel only; make it anew from where it came from";
  throw new SquashError("invalid_request", `Cannot convert module "${name}" to ${format}: ${hint}`);
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
