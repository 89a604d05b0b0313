import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { Cleanup } from "../cleanup.js";
import { firstBytes, unpackerOf, unpackTo } from "../decompress.js";
import { makeWorkshop } from "../confined-tool.js";
import { packTar, type ModuleManifest } from "../pack.js";
import { scratchDirectory, type BaseOptions } from "./base.js";
import { download, type DownloadOptions } from "./download.js";
import { checkTar } from "./tar-check.js";
import { unpackBounds } from "../squashfs-survey.js";

const maxTarBytes = 16 * 1024 ** 3;

export interface TarballOptions extends BaseOptions {
  readonly url: string;
  readonly sha256: string;
  readonly limits?: Omit<DownloadOptions, "sha256" | "signal">;
  /** bytes of the tar file when it is not compressed; @default 16 GiB */
  readonly maxTarBytes?: number;
}

/** Builds a module from a tar file on a server, such as a distribution's own root file system. Throws like `download` and `packArchive`. */
export async function buildFromTarball(options: TarballOptions): Promise<ModuleManifest> {
  const { signal } = options;
  await using cleanup = new Cleanup();
  const scratch = await scratchDirectory(options.dataDir, cleanup);
  const archive = join(scratch, "archive");
  options.progress("downloading the tar file", 0);
  await download(options.url, archive, {
    ...options.limits,
    sha256: options.sha256,
    ...(signal === undefined ? {} : { signal }),
  });
  return await packArchive(archive, scratch, options);
}

/** Packs a tar file: plain, or packed by gzip, xz or zstd. `scratch` must be a directory that nobody else can enter. */
export async function packArchive(
  archive: string,
  scratch: string,
  options: BaseOptions & Pick<TarballOptions, "maxTarBytes">,
): Promise<ModuleManifest> {
  options.progress("checking its entries", 0.4);
  const path = await decompress(archive, scratch, options);
  const facts = await checkTar(path, options.signal);
  options.progress("packing it", 0.6);
  return await packTar({ path, facts }, scratch, options);
}

async function decompress(
  archive: string,
  scratch: string,
  options: BaseOptions & Pick<TarballOptions, "maxTarBytes">,
): Promise<string> {
  const unpacker = unpackerOf(await firstBytes(archive));
  if (unpacker === null) return archive;
  const room = join(scratch, "decompress");
  await mkdir(room, { mode: 0o700 });
  const { run } = await makeWorkshop(room, options);
  const tar = join(room, "tar");
  await using file = await open(archive, "r");
  await unpackTo(run, { unpacker, stdin: file.fd }, tar, {
    target: options.name,
    limit: Math.min(options.maxTarBytes ?? maxTarBytes, (await unpackBounds(scratch)).bytes),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  return tar;
}
