import type { RemoteModuleInfo, RemoteSnapshotInfo } from "@squash/sdk/protocol";
import type { DirectoryCatalog } from "../modules/catalog.js";
import type { OlderObjects } from "../s3/older-objects.js";
import { isMadeOf } from "./older-modules.js";

/** What older daemons have of modules, for the list of all; the digests that their manifests name are not asked for. */
export async function olderModules(
  older: OlderObjects,
  catalog: DirectoryCatalog,
  signal: AbortSignal,
): Promise<RemoteModuleInfo[]> {
  const found: RemoteModuleInfo[] = [];
  for await (const module of older.modules(signal)) {
    const { name, size } = module;
    const here = catalog.imagesOf(name).length === 0 ? "no" : isMadeOf(catalog, module) ? "same" : "different";
    found.push({ name, format: "squashfs", size, sha256: null, here, older: true, problem: null });
  }
  return found;
}

/** What they have of snapshots, of one sandbox or of all; nothing says of what modules. */
export async function olderSnapshots(
  older: OlderObjects,
  sandbox: string | null,
  signal: AbortSignal,
): Promise<RemoteSnapshotInfo[]> {
  const found: RemoteSnapshotInfo[] = [];
  for await (const { id, label, size, modifiedMs } of older.snapshots(signal, sandbox))
    found.push({
      id,
      label,
      created: new Date(modifiedMs).toISOString(),
      size,
      layers: [],
      older: true,
      problem: null,
    });
  return found;
}
