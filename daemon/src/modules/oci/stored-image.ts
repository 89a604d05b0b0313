import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { SquashError } from "@squash/sdk/errors";
import { loadImage, readRange, type ImageParts, type LocalImage } from "./image.js";
import { imageError, quoted } from "./image-error.js";
import { parseConfig, parseManifest, parseSaved, type Descriptor, type ImageIndex } from "./image-schema.js";
import { isPlatform, platformText, type Platform } from "./platform.js";
import type { FileRange } from "./tar-reader.js";

const maxManifestBytes = 8 * 1024 ** 2;
const nameKeys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/** Finds a file of an image that is kept as files, by its name there, such as `index.json`. */
export type FindFile = (name: string) => Promise<FileRange | null>;

interface StoredOptions {
  readonly platform: Platform;
  /** which of several images, as it is called there; null where there is only one */
  readonly reference: string | null;
  readonly signal?: AbortSignal;
}

/** Reads an image out of an OCI layout, or what `docker save` has written. Throws `build_failed`; `invalid_request` when it has to be told which. */
export async function loadStored(find: FindFile, options: StoredOptions): Promise<LocalImage> {
  const index = await find("index.json");
  if (index !== null) return loadLayout(index, find, options);
  const saved = await find("manifest.json");
  if (saved !== null) return loadSaved(saved, find, options);
  throw imageError("there is neither an index.json nor a manifest.json");
}

async function loadLayout(index: FileRange, find: FindFile, options: StoredOptions): Promise<LocalImage> {
  const root = await readSmall(index, "its index.json");
  const parsed = parseManifest(root);
  if (!("manifests" in parsed)) throw imageError("its index.json is no list of manifests");
  const manifests = options.reference === null ? parsed.manifests : named(parsed, options.reference);
  const first = manifests[0];
  const reference = manifests.length === 1 && first !== undefined ? (namesOf(first)[0] ?? null) : null;
  const chosen = Buffer.from(JSON.stringify({ ...parsed, manifests }));
  const parts = new StoredParts(find, options.signal);
  return loadImage(chosen, parts, { platform: options.platform, reference, maxBytes: Number.MAX_SAFE_INTEGER });
}

function named({ manifests }: ImageIndex, wanted: string): ImageIndex["manifests"] {
  const found = manifests.filter((manifest) => namesOf(manifest).includes(wanted));
  if (found.length > 0) return found;
  throw notThere(wanted, manifests.flatMap(namesOf));
}

function namesOf({ annotations = {} }: ImageIndex["manifests"][number]): string[] {
  return nameKeys.map((key) => annotations[key] ?? "").filter((name) => name !== "");
}

/** The older kind of archive, which has digests only of its layers when they are not compressed. */
async function loadSaved(file: FileRange, find: FindFile, options: StoredOptions): Promise<LocalImage> {
  const images = parseSaved(await readSmall(file, "its manifest.json"));
  const { reference, platform } = options;
  const [image, another] =
    reference === null ? images : images.filter(({ RepoTags }) => RepoTags?.includes(reference) === true);
  const names = images.flatMap(({ RepoTags }) => RepoTags ?? []);
  if (image === undefined) throw notThere(reference ?? "", names);
  if (another !== undefined && reference === null) throw whichOne(names);
  const config = parseConfig(await readSmall(await mustFind(find, image.Config), "its configuration"));
  if (config.os !== undefined && !isPlatform(config, platform))
    throw imageError(`it is for ${quoted(`${config.os}/${config.architecture ?? ""}`)}, not ${platformText(platform)}`);
  if (config.rootfs.diff_ids.length !== image.Layers.length)
    throw imageError("its configuration has another number of layers than its manifest");
  const layers: FileRange[] = [];
  for (const layer of image.Layers) layers.push(await mustFind(find, layer));
  return { reference: reference ?? image.RepoTags?.[0] ?? null, config, layers };
}

class StoredParts implements ImageParts {
  readonly #find: FindFile;
  readonly #signal: AbortSignal | undefined;

  constructor(find: FindFile, signal: AbortSignal | undefined) {
    this.#find = find;
    this.#signal = signal;
  }

  async manifest(descriptor: Descriptor): Promise<Buffer> {
    return readSmall(await this.blob(descriptor), "its manifest");
  }

  async blob({ digest, size }: Descriptor): Promise<FileRange> {
    const file = await mustFind(this.#find, `blobs/sha256/${digest.slice("sha256:".length)}`);
    if (file.size !== size) throw imageError(`${digest} has ${file.size} bytes, needed are ${size}`);
    const hash = createHash("sha256");
    const { path, offset } = file;
    const options = this.#signal === undefined ? {} : { signal: this.#signal };
    if (size > 0) await pipeline(createReadStream(path, { start: offset, end: offset + size - 1 }), hash, options);
    const found = `sha256:${hash.digest("hex")}`;
    if (found !== digest) throw imageError(`${digest} has the digest ${found}`);
    return file;
  }
}

async function mustFind(find: FindFile, name: string): Promise<FileRange> {
  const file = await find(name);
  if (file === null) throw imageError(`${quoted(name)} is missing`);
  return file;
}

async function readSmall(file: FileRange, what: string): Promise<Buffer> {
  if (file.size > maxManifestBytes) throw imageError(`${what} is larger than ${maxManifestBytes} bytes`);
  return readRange(file);
}

function notThere(wanted: string, names: readonly string[]): SquashError {
  return imageError(`there is none called ${quoted(wanted)}, but ${quoted(names.join(", "))}`);
}

function whichOne(names: readonly string[]): SquashError {
  const message = `Cannot choose an image: there are several, name one of them: ${quoted(names.join(", "))}`;
  return new SquashError("invalid_request", message);
}
