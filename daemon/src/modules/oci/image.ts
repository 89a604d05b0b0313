import { open } from "node:fs/promises";
import { imageError, quoted } from "./image-error.js";
import {
  isLayerType,
  parseConfig,
  parseManifest,
  type Descriptor,
  type ImageConfig,
  type ImageIndex,
  type ImageManifest,
} from "./image-schema.js";
import { isPlatform, platformText, type Platform } from "./platform.js";
import type { FileRange } from "./tar-reader.js";

const maxConfigBytes = 8 * 1024 ** 2;
const maxLists = 3;
const parallelBlobs = 3;

/** An image whose parts are on this machine. */
export interface LocalImage {
  /** what it is called; null where nothing says so */
  readonly reference: string | null;
  readonly config: ImageConfig;
  /** the lowest first, as they lie there, compressed or not */
  readonly layers: readonly FileRange[];
}

/** Where the parts of an image come from, checked against their digests. */
export interface ImageParts {
  /** A manifest, or list of manifests. */
  manifest(descriptor: Descriptor): Promise<Buffer>;
  /** A blob, which is on this machine from then on. */
  blob(descriptor: Descriptor): Promise<FileRange>;
}

interface LoadOptions {
  readonly platform: Platform;
  readonly reference: string | null;
  /** bytes of all layers together, as they are sent */
  readonly maxBytes: number;
}

/** Gets what an image of this platform consists of, beginning with a manifest or a list of them. Throws `build_failed`. */
export async function loadImage(root: Buffer, parts: ImageParts, options: LoadOptions): Promise<LocalImage> {
  const manifest = await chooseManifest(root, parts, options.platform);
  if (!/^application\/vnd\.(?:oci\.image\.config|docker\.container\.image)\.v1\+json$/.test(manifest.config.mediaType))
    throw imageError(`it is ${quoted(manifest.config.mediaType)}, needed is an image of a root file system`);
  const other = manifest.layers.find(({ mediaType }) => !isLayerType(mediaType));
  if (other !== undefined) throw imageError(`a layer is of the type ${quoted(other.mediaType)}`);
  const size = manifest.layers.reduce((sum, layer) => sum + layer.size, 0);
  if (size > options.maxBytes) throw imageError(`its layers have ${size} bytes, at most ${options.maxBytes} are taken`);
  if (manifest.config.size > maxConfigBytes)
    throw imageError(`its configuration is larger than ${maxConfigBytes} bytes`);
  const config = parseConfig(await readRange(await parts.blob(manifest.config)));
  if (config.os !== undefined && !isPlatform(config, options.platform))
    throw imageError(
      `it is for ${quoted(`${config.os}/${config.architecture ?? ""}`)}, not ${platformText(options.platform)}`,
    );
  if (config.rootfs.diff_ids.length !== manifest.layers.length)
    throw imageError("its configuration has another number of layers than its manifest");
  const layers = await inParallel(manifest.layers, (layer) => parts.blob(layer));
  return { reference: options.reference, config, layers };
}

async function chooseManifest(root: Buffer, parts: ImageParts, platform: Platform): Promise<ImageManifest> {
  let found = parseManifest(root);
  for (let lists = 0; "manifests" in found; lists++) {
    if (lists === maxLists) throw imageError("its lists of manifests lead to ever more lists");
    found = parseManifest(await parts.manifest(choose(found, platform)));
  }
  return found;
}

/** The manifest of a platform; where a list has one and says nothing of its platform, that one. */
function choose({ manifests }: ImageIndex, wanted: Platform): Descriptor {
  const exact = manifests.find(({ platform }) => platform !== undefined && isPlatform(platform, wanted));
  const [only] = manifests;
  const chosen = exact ?? (manifests.length === 1 && only?.platform === undefined ? only : undefined);
  if (chosen !== undefined) return chosen;
  const offered = manifests
    .map(({ platform }) => (platform === undefined ? "" : `${platform.os}/${platform.architecture}`))
    .filter((each) => each !== "" && !each.includes("unknown"));
  throw imageError(`it is not there for ${platformText(wanted)}, but for ${quoted([...new Set(offered)].join(", "))}`);
}

/** The bytes of a small part. */
export async function readRange({ path, offset, size }: FileRange): Promise<Buffer> {
  await using file = await open(path, "r");
  const bytes = Buffer.alloc(size);
  for (let done = 0; done < size;) {
    const { bytesRead } = await file.read(bytes, done, size - done, offset + done);
    if (bytesRead === 0) throw imageError(`"${path}" is cut off`);
    done += bytesRead;
  }
  return bytes;
}

/** Results in order; no more is begun after a failure, which is thrown when all that was begun has ended. */
async function inParallel<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const failures: unknown[] = [];
  const queue = [...items.entries()].toReversed();
  const worker = async (): Promise<void> => {
    for (let next = queue.pop(); next !== undefined && failures.length === 0; next = queue.pop()) {
      try {
        results[next[0]] = await work(next[1]);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: parallelBlobs }, worker));
  if (failures.length > 0) throw failures[0];
  return results;
}
