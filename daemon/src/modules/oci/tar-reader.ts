import { open, type FileHandle } from "node:fs/promises";
import { imageError } from "./image-error.js";
import { blockBytes, isZero, parseHeader, parsePax, type TarHeader } from "./tar-header.js";

const windowBytes = 256 * 1024;
const maxExtendedBytes = 1024 * 1024;
/** types whose size counts nothing, as in Go's archive/tar, which made most images */
const withoutData = new Set(["1", "2", "3", "4", "5", "6"]);

/** Bytes of a file on the host. */
export interface FileRange {
  readonly path: string;
  readonly offset: number;
  readonly size: number;
}

/** One member of a tar file, with its long names and extended attributes; not checked for tricks. */
export interface TarEntry extends TarHeader {
  /** where its content lies in the file that holds the tar file */
  readonly offset: number;
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

/** Reads the headers of an uncompressed tar file, passing over the contents. Throws `build_failed`, with `label` for which one it is. */
export async function* readTar(
  tar: FileRange,
  options: { readonly label: string; readonly signal?: AbortSignal },
): AsyncGenerator<TarEntry> {
  await using file = await open(tar.path, "r");
  const reader = new WindowReader(file, tar);
  let extended = new Extended();
  try {
    for (let at = 0; at < tar.size;) {
      options.signal?.throwIfAborted();
      const block = await reader.read(at, blockBytes);
      if (isZero(block)) return;
      const header = parseHeader(block);
      const data = at + blockBytes;
      const kind = extendedKinds[header.type];
      if (kind !== undefined) {
        if (header.size > maxExtendedBytes) throw new RangeError(`a header is larger than ${maxExtendedBytes} bytes`);
        extended.add(kind, await reader.read(data, header.size));
        at = data + padded(header.size);
        continue;
      }
      const entry = extended.apply(header, tar.offset + data);
      if (data + entry.size > tar.size) throw new RangeError("it is cut off");
      yield entry;
      extended = new Extended();
      at = data + padded(entry.size);
    }
  } catch (cause) {
    if (cause instanceof RangeError) throw imageError(`${options.label}: ${cause.message}`, cause);
    throw cause;
  }
}

type ExtendedKind = "pax" | "global" | "path" | "link";

const extendedKinds: Readonly<Record<string, ExtendedKind>> = { x: "pax", g: "global", L: "path", K: "link" };

/** What stands before an entry and changes it. */
class Extended {
  #pax: ReadonlyMap<string, Buffer> = new Map();
  #path: string | null = null;
  #link: string | null = null;

  add(kind: ExtendedKind, bytes: Buffer): void {
    switch (kind) {
      case "pax":
        this.#pax = parsePax(bytes);
        break;
      case "path":
        this.#path = untilZero(bytes);
        break;
      case "link":
        this.#link = untilZero(bytes);
        break;
      case "global":
        parsePax(bytes); // a comment of who made the archive; nobody's layers depend on it
    }
  }

  apply(header: TarHeader, offset: number): TarEntry {
    const xattrs = new Map<string, Buffer>();
    for (const [key, value] of this.#pax) {
      if (key.startsWith("GNU.sparse.")) throw new RangeError("it has a sparse file, which is not supported");
      if (key.startsWith("SCHILY.xattr.")) xattrs.set(key.slice("SCHILY.xattr.".length), value);
    }
    const size = this.#number("size") ?? header.size;
    if (size < 0) throw new RangeError("a size is negative");
    return {
      ...header,
      name: this.#pax.get("path")?.toString("latin1") ?? this.#path ?? header.name,
      linkname: this.#pax.get("linkpath")?.toString("latin1") ?? this.#link ?? header.linkname,
      uid: this.#number("uid") ?? header.uid,
      gid: this.#number("gid") ?? header.gid,
      mtimeS: this.#number("mtime") ?? header.mtimeS,
      size: withoutData.has(header.type) ? 0 : size,
      offset,
      xattrs,
    };
  }

  #number(key: string): number | null {
    const text = this.#pax.get(key)?.toString("latin1");
    if (text === undefined || text === "") return null;
    if (!/^-?\d{1,15}(?:\.\d*)?$/.test(text)) throw new RangeError(`a pax header has a "${key}" that is no number`);
    return Math.floor(Number(text));
  }
}

/** Reads parts of a file that mostly lie close together. */
class WindowReader {
  readonly #file: FileHandle;
  readonly #range: FileRange;
  #window: Buffer = Buffer.alloc(0);
  #start = 0;

  constructor(file: FileHandle, range: FileRange) {
    this.#file = file;
    this.#range = range;
  }

  /** The bytes from `at`, counted from the start of the range; valid until the next call. Throws `RangeError` where there are fewer. */
  async read(at: number, length: number): Promise<Buffer> {
    if (at + length > this.#range.size) throw new RangeError("it is cut off");
    if (at < this.#start || at + length > this.#start + this.#window.length) await this.#fill(at, length);
    return this.#window.subarray(at - this.#start, at - this.#start + length);
  }

  async #fill(at: number, length: number): Promise<void> {
    const wanted = Math.min(Math.max(length, windowBytes), this.#range.size - at);
    const buffer = Buffer.allocUnsafe(wanted);
    let filled = 0;
    while (filled < wanted) {
      const { bytesRead } = await this.#file.read(buffer, filled, wanted - filled, this.#range.offset + at + filled);
      if (bytesRead === 0) throw new RangeError("it is cut off");
      filled += bytesRead;
    }
    this.#window = buffer;
    this.#start = at;
  }
}

function padded(size: number): number {
  return Math.ceil(size / blockBytes) * blockBytes;
}

function untilZero(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("latin1", 0, end < 0 ? bytes.length : end);
}
