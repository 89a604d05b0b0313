import { createReadStream } from "node:fs";
import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { firstBytes, unpackerOf, unpackTo } from "../decompress.js";
import type { RunTool } from "../run-tool.js";
import { splitPath } from "./entry-path.js";
import { imageError, quoted } from "./image-error.js";
import type { FindFile } from "./stored-image.js";
import { readTar, type FileRange } from "./tar-reader.js";

const maxMembers = 20_000;
const maxLinks = 8;

/** The files of an OCI layout, none of them by way of a symbolic link. */
export function filesInDirectory(directory: string): FindFile {
  return async (name) => {
    let path = directory;
    for (const each of splitName(name)) {
      path = join(path, each);
      const stat = await lstat(path).catch((cause: NodeJS.ErrnoException) => {
        if (cause.code === "ENOENT" || cause.code === "ENOTDIR") return null;
        throw imageError(cause.message, cause);
      });
      if (stat === null) return null;
      if (stat.isFile()) return { path, offset: 0, size: stat.size };
      if (!stat.isDirectory()) throw imageError(`${quoted(path)} is a link or a special file`);
    }
    return null;
  };
}

interface ArchiveOptions {
  /** a directory for what is unpacked */
  readonly scratch: string;
  readonly run: RunTool;
  /** bytes of the archive when it is not compressed */
  readonly limit: number;
  readonly signal?: AbortSignal;
}

/** The files of a tar archive, which may be compressed; read where they lie in it. Throws `build_failed`. */
export async function filesInArchive(archive: string, options: ArchiveOptions): Promise<FindFile> {
  const tar = await plainArchive(archive, options);
  const files = new Map<string, FileRange | { readonly link: readonly string[] }>();
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  for await (const entry of readTar(tar, { label: "the archive", ...signal })) {
    const path = splitName(entry.name);
    const name = path.join("/");
    if (entry.type === "0") files.set(name, { path: tar.path, offset: entry.offset, size: entry.size });
    // docker has saved layers that are the same as links from one to the other
    if (entry.type === "1") files.set(name, { link: splitName(entry.linkname) });
    if (entry.type === "2") files.set(name, { link: followed(path.slice(0, -1), entry.linkname) });
    if (files.size > maxMembers) throw imageError(`the archive has over ${maxMembers} files`);
  }
  return (wanted) => {
    let name = splitName(wanted).join("/");
    for (let links = 0; links <= maxLinks; links++) {
      const found = files.get(name);
      if (found === undefined) return Promise.resolve(null);
      if (!("link" in found)) return Promise.resolve(found);
      name = found.link.join("/");
    }
    return Promise.reject(imageError(`${quoted(wanted)} is a link to ever more links`));
  };
}

async function plainArchive(archive: string, { scratch, run, limit, signal }: ArchiveOptions): Promise<FileRange> {
  const stat = await lstat(archive).catch((cause: NodeJS.ErrnoException) => {
    throw imageError(cause.message, cause);
  });
  if (!stat.isFile()) throw imageError(`${quoted(archive)} is no file`);
  const unpacker = unpackerOf(await firstBytes(archive));
  if (unpacker === null) return { path: archive, offset: 0, size: stat.size };
  const path = join(scratch, "archive.tar");
  const source = { unpacker, stdin: createReadStream(archive) };
  const end = { target: archive, limit, ...(signal === undefined ? {} : { signal }) };
  const { size } = await unpackTo(run, source, path, end);
  return { path, offset: 0, size };
}

/** Where a symbolic link in a directory of the archive leads, by names alone; it cannot lead out. */
function followed(directory: readonly string[], target: string): string[] {
  const path = target.startsWith("/") ? [] : [...directory];
  for (const name of target.split("/")) {
    if (name === "..") path.pop();
    else if (name !== "" && name !== ".") path.push(name);
  }
  return path;
}

function splitName(name: string): string[] {
  try {
    return splitPath(name);
  } catch (cause) {
    throw imageError(`of its files, ${(cause as Error).message}`, cause);
  }
}
