import { mkdir, open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { Writable } from "node:stream";
import { Cleanup } from "../cleanup.js";
import { makeWorkshop } from "../confined-tool.js";
import { packTar, type ModuleManifest } from "../pack.js";
import { scratchDirectory, type BaseOptions } from "./base.js";
import { download, type DownloadOptions } from "./download.js";
import { checkTar } from "./tar-check.js";

const unpackDeadlineMs = 10 * 60_000;
const maxTarBytes = 16 * 1024 ** 3;

const compressions = [
  { magic: "1f8b", argv: ["gzip", "-dc"] },
  { magic: "fd377a585a00", argv: ["xz", "-dc"] },
  { magic: "28b52ffd", argv: ["zstd", "-dcq"] },
] as const;

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
  const start = await firstBytes(archive);
  const compression = compressions.find(({ magic }) => start.startsWith(magic));
  if (compression === undefined) return archive;
  const room = join(scratch, "decompress");
  await mkdir(room, { mode: 0o700 });
  const { run } = await makeWorkshop(room, options);
  const tar = join(room, "tar");
  await using file = await open(archive, "r");
  await using plain = await open(tar, "wx", 0o600);
  await run(compression.argv, {
    op: "decompress",
    target: options.name,
    stdin: file.fd,
    stdout: new BoundedFile(plain, options.maxTarBytes ?? maxTarBytes),
    deadlineMs: unpackDeadlineMs,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  return tar;
}

/** A new file that fails, before the disk is full, when it would become too large. */
class BoundedFile extends Writable {
  readonly #file: FileHandle;
  #left: number;

  constructor(file: FileHandle, limit: number) {
    super();
    this.#file = file;
    this.#left = limit;
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: (error?: Error) => void): void {
    this.#left -= chunk.length;
    if (this.#left < 0) done(new Error("it is too large"));
    else this.#file.writeFile(chunk).then(() => done(), done);
  }
}

async function firstBytes(path: string): Promise<string> {
  await using file = await open(path, "r");
  const { bytesRead, buffer } = await file.read(Buffer.alloc(8), 0, 8, 0);
  return buffer.toString("hex", 0, bytesRead);
}
