import { runTool } from "../run-tool.js";
import { BlobCache } from "./blob-cache.js";
import type { LocalImage } from "./image.js";
import type { Platform } from "./platform.js";
import { parseReference } from "./reference.js";
import type { Credentials } from "./registry-auth.js";
import { pullImage } from "./registry-source.js";
import { filesInArchive, filesInDirectory } from "./stored-files.js";
import { loadStored } from "./stored-image.js";

const maxArchiveBytes = 32 * 1024 ** 3;

/** Where an image is. */
export interface ImageSource {
  /** of a registry's image; with a layout or archive, what the image is called in it, null where there is one only */
  readonly reference: string | null;
  /** directory of an OCI layout */
  readonly layout: string | null;
  /** file that `docker save` has written */
  readonly archive: string | null;
  readonly platform: Platform;
  /** whether plain HTTP is allowed, to whatever registry */
  readonly insecure: boolean;
  readonly credentials: Credentials | null;
}

/** Gets an image onto this machine. Throws `build_failed`, `cancelled`, `invalid_request`. */
export async function loadImageFrom(
  source: ImageSource,
  around: {
    readonly dataDir: string;
    readonly scratch: string;
    readonly signal: AbortSignal;
    readonly progress: (line: string) => void;
  },
): Promise<LocalImage> {
  const { reference, layout, archive, platform } = source;
  const { dataDir, signal, scratch } = around;
  if (layout !== null) return loadStored(filesInDirectory(layout), { platform, reference, signal });
  if (archive !== null) {
    around.progress("reading the archive");
    const files = await filesInArchive(archive, { scratch, run: runTool, limit: maxArchiveBytes, signal });
    return loadStored(files, { platform, reference, signal });
  }
  const wanted = parseReference(reference ?? "");
  const cache = new BlobCache(dataDir);
  await cache.prune();
  const { insecure, credentials } = source;
  return pullImage(wanted, { ...around, platform, cache, insecure, credentials });
}
