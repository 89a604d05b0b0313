import type { RemoteModuleInfo } from "@squash/sdk/protocol";
import type { DirectoryCatalog } from "../modules/catalog.js";
import type { BucketParts } from "./bucket-parts.js";
import { olderModules } from "./older-list.js";
import type { RemoteModules } from "./remote-modules.js";

/** Modules in the bucket, and of those that are damaged what is wrong with them. */
export async function listModules(
  bucket: BucketParts,
  catalog: DirectoryCatalog,
  sent: Pick<RemoteModules, "isSame">,
  signal: AbortSignal,
): Promise<RemoteModuleInfo[]> {
  const { modules, problems } = await bucket.modules.list(signal);
  const isHere = (name: string): boolean => catalog.imagesOf(name).length > 0;
  const own = modules.map((module): RemoteModuleInfo => {
    const { name, format, size, sha256 } = module;
    const here = !isHere(name) ? "no" : sent.isSame(name, module) ? "same" : "different";
    return { name, format, size, sha256, here, older: false, problem: null };
  });
  const damaged = [...problems].map(([name, { message: problem }]): RemoteModuleInfo => {
    const here = isHere(name) ? "different" : "no";
    return { name, format: null, size: 0, sha256: null, here, older: false, problem };
  });
  return [...own, ...damaged, ...(await olderModules(bucket.older, catalog, signal))];
}
