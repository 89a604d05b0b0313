import { open } from "node:fs/promises";
import { join } from "node:path";
import { Cleanup } from "../cleanup.js";
import { firstBytes, unpackerOf, unpackTo } from "../decompress.js";
import { packTar, type ModuleManifest } from "../pack.js";
import { runTool, type RunTool } from "../run-tool.js";
import { scratchDirectory, type BaseOptions } from "./base.js";
import { download, type DownloadOptions } from "./download.js";
import { checkTar } from "./tar-check.js";

const maxTarBytes = 16 * 1024 ** 3;

export interface TarballOptions extends BaseOptions {
  readonly url: string;
  readonly sha256: string;
  readonly limits?: Omit<DownloadOptions, "sha256" | "signal">;
  /** bytes of the tar file when it is not compressed; @default 16 GiB */
  readonly maxTarBytes?: number;
}

/** Builds a base from a distribution's own root file system: a tar file, plain or packed by gzip, xz or zstd. Throws like `download`. */
export async function buildFromTarball(options: TarballOptions): Promise<ModuleManifest> {
  const { signal, run = runTool } = options;
  await using cleanup = new Cleanup();
  const scratch = await scratchDirectory(options.dataDir, cleanup);
  const archive = join(scratch, "archive");
  options.progress("downloading the root file system");
  await download(options.url, archive, {
    ...options.limits,
    sha256: options.sha256,
    ...(signal === undefined ? {} : { signal }),
  });
  options.progress("checking its entries");
  const path = await decompress(run, archive, options);
  const facts = await checkTar(path, signal);
  options.progress("packing it");
  return await packTar({ path, facts }, scratch, options);
}

async function decompress(run: RunTool, archive: string, options: TarballOptions): Promise<string> {
  const unpacker = unpackerOf(await firstBytes(archive));
  if (unpacker === null) return archive;
  const tar = `${archive}.tar`;
  await using file = await open(archive, "r");
  await unpackTo(run, { unpacker, stdin: file.fd }, tar, {
    target: options.name,
    limit: options.maxTarBytes ?? maxTarBytes,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  return tar;
}
