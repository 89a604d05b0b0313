import type { JobContext } from "../core/jobs.js";
import type { DirectoryCatalog } from "../modules/catalog.js";
import { publish } from "../modules/pack.js";
import { olderSource, type OlderModule } from "../s3/older-objects.js";
import type { OlderImages } from "./older-images.js";
import { otherHere } from "./remote-modules.js";

export interface OlderModulesOptions {
  readonly catalog: DirectoryCatalog;
  readonly dataDir: string;
  readonly images: OlderImages;
  /** as in `RemoteModulesOptions` */
  readonly replace: (name: string, work: () => Promise<void>) => Promise<void>;
}

/** Whether the module here was made of that object of the bucket. */
export function isMadeOf(catalog: DirectoryCatalog, module: OlderModule): boolean {
  return catalog.manifests.of(module.name)?.builder === olderSource(module);
}

/**
 * Fetches a module of an older daemon, and puts what is made of it in place, as an erofs image. Throws `module_exists` where there is another one
 * here that is not to be replaced, `module_in_use`, `s3_*`, `build_failed`.
 */
export async function pullOlderModule(
  module: OlderModule,
  { catalog, dataDir, images, replace: replaceModule }: OlderModulesOptions,
  { replace }: { readonly replace: boolean },
  context: JobContext,
): Promise<void> {
  const { name } = module;
  await catalog.reserve(name, "fetched", async () => {
    const isThere = catalog.imagesOf(name).length > 0;
    if (isThere && isMadeOf(catalog, module)) return;
    if (isThere && !replace) throw otherHere(name);
    const manifest = await publish(
      {
        dataDir,
        name,
        builder: olderSource(module),
        formats: ["erofs"],
        force: true,
        signal: context.signal,
        commit: (place) => (isThere ? replaceModule(name, place) : catalog.close(name, () => undefined, place)),
      },
      async (_, draft) => {
        await images.make(module, { name: `module ${name}`, target: draft }, context);
      },
    );
    const file = `${name}.erofs`;
    const sha256 = manifest.files[file]?.sha256;
    if (sha256 !== undefined) await catalog.digests.record(file, sha256);
  });
}
