import { open, type FileHandle } from "node:fs/promises";
import type { TarFacts } from "../bases/tar-check.js";
import { imageError } from "./image-error.js";
import { formatEntry, padding } from "./tar-entry.js";
import { blockBytes } from "./tar-header.js";
import type { FileRange } from "./tar-reader.js";
import type { Attributes, DirectoryNode, FileNode, TreeNode } from "./tree.js";

const bufferBytes = 1024 * 1024;
const whiteoutAttributes: Attributes = { mode: 0, uid: 0, gid: 0, mtimeS: 0, xattrs: new Map() };

interface TreeTarOptions {
  /** bytes that the tar file may have */
  readonly limit: number;
  readonly signal?: AbortSignal;
}

/**
 * Writes a tree as a new tar file, sorted by name, so that the same tree gives the same bytes; contents are copied from where they lie.
 * Whiteouts and opaque directories become what overlayfs reads as such. Throws `build_failed` when it would be too large.
 */
export async function writeTreeTar(root: DirectoryNode, path: string, options: TreeTarOptions): Promise<TarFacts> {
  await using writer = new TarWriter(await open(path, "wx", 0o600), options.limit);
  const firstNames = new Map<TreeNode, string>();
  let latestMtimeS = 0;
  for (const [name, node] of walk(root)) {
    options.signal?.throwIfAborted();
    if (node.kind !== "whiteout") latestMtimeS = Math.max(latestMtimeS, node.attributes?.mtimeS ?? 0);
    const first = firstNames.get(node);
    if (first !== undefined) {
      await writer.header(name, "1", { ...attributesOf(node), xattrs: new Map() }, { linkname: first });
      continue;
    }
    if (node.kind !== "directory" && node.kind !== "whiteout") firstNames.set(node, name);
    await writeNode(writer, name, node);
  }
  await writer.finish();
  return { devices: [], latestMtimeS };
}

async function writeNode(writer: TarWriter, name: string, node: TreeNode): Promise<void> {
  const attributes = attributesOf(node);
  switch (node.kind) {
    case "file":
      await writer.header(name, "0", attributes, { size: node.content.size });
      return writer.copy(node);
    case "symlink":
      return writer.header(name, "2", attributes, { linkname: node.target });
    case "fifo":
      return writer.header(name, "6", attributes);
    case "whiteout":
      return writer.header(name, "3", attributes);
    case "directory":
      return writer.header(`${name}/`, "5", attributes);
  }
}

/** Everything below the root, directories before what is in them, sorted by bytes. Not by recursion: trees may be thousands deep. */
function* walk(root: DirectoryNode): Generator<[string, TreeNode]> {
  const pending: [string, TreeNode][] = [];
  const push = (prefix: string, directory: DirectoryNode): void => {
    const sorted = [...directory.children].toSorted(([a], [b]) => (a < b ? 1 : -1));
    for (const [name, node] of sorted) pending.push([`${prefix}${name}`, node]);
  };
  push("", root);
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    yield next;
    if (next[1].kind === "directory") push(`${next[0]}/`, next[1]);
  }
}

function attributesOf(node: TreeNode): Attributes {
  if (node.kind === "whiteout") return whiteoutAttributes;
  const attributes = node.attributes ?? whiteoutAttributes;
  if (node.kind !== "directory" || !node.isOpaque) return attributes;
  return { ...attributes, xattrs: new Map([...attributes.xattrs, ["trusted.overlay.opaque", Buffer.from("y")]]) };
}

/** Writes a tar file by large pieces. */
class TarWriter implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #sources = new Map<string, FileHandle>();
  readonly #buffer = Buffer.allocUnsafe(bufferBytes);
  #filled = 0;
  #position = 0;
  #left: number;

  constructor(file: FileHandle, limit: number) {
    this.#file = file;
    this.#left = limit;
  }

  async header(
    name: string,
    type: string,
    attributes: Attributes,
    { linkname = "", size = 0 }: { linkname?: string; size?: number } = {},
  ): Promise<void> {
    await this.#write(formatEntry({ ...attributes, name, type, linkname, size }));
  }

  /** Copies the content that belongs to the header before; holes stay holes of the tar file. */
  async copy({ content, extents }: FileNode): Promise<void> {
    if (extents === undefined) await this.#copyRange(content);
    else {
      let done = 0;
      for (const { at, offset, size } of extents) {
        await this.#skip(at - done);
        await this.#copyRange({ path: content.path, offset, size });
        done = at + size;
      }
      await this.#skip(content.size - done);
    }
    await this.#pad(content.size);
  }

  async finish(): Promise<void> {
    await this.#write(Buffer.alloc(2 * blockBytes));
    await this.#flush();
    await this.#file.truncate(this.#position);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    for (const source of this.#sources.values()) await source.close();
  }

  async #copyRange({ path, offset, size }: FileRange): Promise<void> {
    const source = this.#sources.get(path) ?? (await open(path, "r"));
    this.#sources.set(path, source);
    for (let done = 0; done < size;) {
      if (this.#filled === bufferBytes) await this.#flush();
      const wanted = Math.min(size - done, bufferBytes - this.#filled);
      const { bytesRead } = await source.read(this.#buffer, this.#filled, wanted, offset + done);
      if (bytesRead === 0) throw imageError("a layer was cut off while it was read");
      this.#filled += bytesRead;
      this.#spend(bytesRead);
      done += bytesRead;
    }
  }

  /** Leaves a hole, which reads as zeroes. */
  async #skip(size: number): Promise<void> {
    if (size === 0) return;
    await this.#flush();
    this.#spend(size);
    this.#position += size;
  }

  async #pad(size: number): Promise<void> {
    await this.#write(padding(size));
  }

  async #write(bytes: Buffer): Promise<void> {
    this.#spend(bytes.length);
    for (let done = 0; done < bytes.length;) {
      if (this.#filled === bufferBytes) await this.#flush();
      const copied = bytes.copy(this.#buffer, this.#filled, done);
      this.#filled += copied;
      done += copied;
    }
  }

  #spend(bytes: number): void {
    this.#left -= bytes;
    if (this.#left < 0) throw imageError("its files are too large together");
  }

  async #flush(): Promise<void> {
    for (let done = 0; done < this.#filled;) {
      const rest = this.#filled - done;
      const { bytesWritten } = await this.#file.write(this.#buffer, done, rest, this.#position);
      this.#position += bytesWritten;
      done += bytesWritten;
    }
    this.#filled = 0;
  }
}
