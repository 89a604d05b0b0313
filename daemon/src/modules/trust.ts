import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { DirectoryCatalog } from "./catalog.js";
import { aboutOf, type ModuleAbout } from "./module-about.js";
import { readTrailer } from "./module-trailer.js";
import { writeManifest, type ImageFile, type ModuleManifest } from "./manifest.js";

/**
 * Writes a manifest for the images of a module as they are, which makes them trusted; what an earlier manifest said besides is kept, else what
 * an image says of itself. Throws `module_not_found`, and `module_invalid` for what is no regular file, or says something that is damaged.
 */
export async function trustModule(catalog: DirectoryCatalog, name: string): Promise<void> {
  await catalog.reserve(name, "trusted", async () => {
    const formats = catalog.imagesOf(name);
    if (formats.length === 0) await catalog.facts(name); // throws
    const files: Record<string, ImageFile> = {};
    let about: ModuleAbout | null = null;
    for (const format of formats) {
      const file = `${name}.${format}`;
      const stat = await lstat(join(catalog.directory, file), { bigint: true });
      if (!stat.isFile())
        throw new SquashError("module_invalid", `Cannot trust module "${name}": "modules/${file}" is no regular file`);
      about ??= await readTrailer(join(catalog.directory, file), name);
      files[file] = { size: Number(stat.size), sha256: await catalog.digests.of(file, stat) };
    }
    const before = manifestOf(catalog, name) ?? {
      schema: 1,
      built_at: new Date().toISOString(),
      ...aboutOf({ builder: "trust", ...about, name }),
    };
    await writeManifest(catalog.directory, { ...before, files });
  });
}

function manifestOf(catalog: DirectoryCatalog, name: string): ModuleManifest | null {
  try {
    return catalog.manifests.of(name);
  } catch (error) {
    if (isSquashError(error)) return null; // a damaged one is replaced
    throw error;
  }
}
