import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { SquashError } from "@squash/sdk/errors";
import { TreeBudget } from "./oci/layer-tree.js";
import { emptyDirectory, type Attributes, type DirectoryNode, type FileNode, type TreeNode } from "./oci/tree.js";

const blockBytes = 4096;
const superOffset = 1024;
const inodeBytes = 64;
const slotBytes = 32;
const direntBytes = 12;
const windowBytes = 64 * 1024;
const holeBlock = 0xffff_ffff;
const maxLinkBytes = 4095;
/** no file of a module is larger than a tar file may be */
const maxFileBytes = 2n ** 43n;
const layouts = { flat: 0, inline: 2, chunked: 4 } as const;
const kinds = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  fifo: 0o010000,
  character: 0o020000,
  socket: 0o140000,
} as const;
/** by the number that stands for it */
const prefixes: Readonly<Record<number, string>> = { 1: "user.", 4: "trusted.", 6: "security." };
/** as a tar file can say it, in which "=" would end the name */
const usualName = /^[\x21-\x3c\x3e-\x7e]{1,255}$/;
const noXattrs: ReadonlyMap<string, Buffer> = new Map();

/** For a tree that is to have all that the image has: what tar files and modules cannot hold fails the reading. */
export interface ExactReading {
  /** told of what nobody has a use for outside of where it was made: a socket, or a device */
  readonly leaveOut: (kind: "socket" | "device", path: string) => void;
}

/** What a tree cannot hold; the file's name is added by who knows it. */
class Unkept extends Error {}

/** An inode as it is on disk. */
interface Inode {
  readonly mode: number;
  readonly size: number;
  readonly layout: number;
  /** first block, or of a chunked file the kind of its chunks, or of a device its number */
  readonly data: number;
  readonly attributes: Attributes;
  readonly isOpaque: boolean;
  /** where in the file what is inline begins */
  readonly inlineAt: number;
}

/**
 * Reads an image that a capture of sq-host has written, without mounting it: which files there are, and where in it their contents lie.
 * Whiteouts and opaque directories are told as such; sockets, other devices, and attributes that are neither users' own nor overlayfs' are left
 * out. Read exactly, all attributes are kept, those of overlayfs as what they are. Blocks, and keeps the whole tree in memory: for a process of
 * its own. Throws `build_failed` for what is no such image.
 */
export function readErofsTree(
  path: string,
  budget: TreeBudget = new TreeBudget(),
  exact: ExactReading | null = null,
): DirectoryNode {
  const file = openSync(path, "r");
  try {
    return new ErofsReader({ path, file, budget, exact }).read();
  } catch (cause) {
    if (cause instanceof RangeError)
      throw new SquashError("build_failed", `Cannot read the captured files: ${cause.message}`, { cause });
    throw cause;
  } finally {
    closeSync(file);
  }
}

class ErofsReader {
  readonly #path: string;
  readonly #file: number;
  readonly #size: number;
  readonly #budget: TreeBudget;
  readonly #exact: ExactReading | null;
  /** inodes and names lie apart, and each is read in about the order in which it was written */
  readonly #inodes: Window;
  readonly #names: Window;
  readonly #linked = new Map<bigint, TreeNode>();
  #inodesAt = 0;

  constructor(source: {
    readonly path: string;
    readonly file: number;
    readonly budget: TreeBudget;
    readonly exact: ExactReading | null;
  }) {
    const { path, file, budget, exact } = source;
    this.#path = path;
    this.#file = file;
    this.#budget = budget;
    this.#exact = exact;
    this.#size = fstatSync(file).size;
    this.#inodes = new Window(file, this.#size);
    this.#names = new Window(file, this.#size);
  }

  read(): DirectoryNode {
    const head = this.#names.read(superOffset, 128);
    if (head.readUInt32LE(0) !== 0xe0f5e1e2 || head.readUInt8(12) !== 12)
      throw new RangeError("they are no erofs image");
    this.#inodesAt = head.readUInt32LE(40) * blockBytes;
    const root = emptyDirectory();
    const rootInode = this.#inode(BigInt(head.readUInt16LE(14)), "/");
    root.attributes = rootInode.attributes;
    const pending: [DirectoryNode, Inode, string][] = [[root, rootInode, ""]];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const [directory, inode, above] = next;
      for (const [name, number] of this.#entries(inode)) {
        // a directory that leads back to itself ends here
        this.#budget.take(1, name.length);
        const path = `${above}/${name}`;
        const found = this.#inode(number, path);
        const node = this.#node(number, found, path);
        if (node === null) continue;
        directory.children.set(name, node);
        if (node.kind === "directory") pending.push([node, found, path]);
      }
    }
    return root;
  }

  #inode(number: bigint, path: string): Inode {
    try {
      return this.#readInode(number);
    } catch (error) {
      if (!(error instanceof Unkept)) throw error;
      const name = JSON.stringify(Buffer.from(path, "latin1").toString("utf8"));
      throw new SquashError("build_failed", `Cannot keep file ${name}: ${error.message}`);
    }
  }

  #readInode(number: bigint): Inode {
    const at = this.#inodesAt + Number(number) * slotBytes;
    const bytes = this.#inodes.read(at, inodeBytes);
    const format = bytes.readUInt16LE(0);
    const size = bytes.readBigUInt64LE(8);
    if ((format & 1) !== 1 || size > maxFileBytes) throw new RangeError("an inode of them is damaged");
    const [mode, count] = [bytes.readUInt16LE(4), bytes.readUInt16LE(2)];
    const [data, uid, gid, mtime] = [
      bytes.readUInt32LE(16),
      bytes.readUInt32LE(24),
      bytes.readUInt32LE(28),
      bytes.readBigInt64LE(32),
    ];
    const attributeBytes = count === 0 ? 0 : 12 + (count - 1) * 4;
    const { xattrs, isOpaque } = this.#xattrs(at + inodeBytes, attributeBytes);
    // as an image holds it; a time that it cannot hold counts as none
    const isTime = mtime >= 0n && mtime <= 0xffff_ffffn;
    if (!isTime && this.#exact !== null) throw new Unkept(`a squashfs image cannot hold its time, ${mtime} s`);
    const mtimeS = isTime ? Number(mtime) : 0;
    const attributes = { mode: mode & 0o7777, uid, gid, mtimeS, xattrs };
    const inlineAt = at + inodeBytes + attributeBytes;
    return { mode, size: Number(size), layout: (format >> 1) & 7, data, attributes, isOpaque, inlineAt };
  }

  #xattrs(at: number, size: number): { xattrs: ReadonlyMap<string, Buffer>; isOpaque: boolean } {
    if (size === 0) return { xattrs: noXattrs, isOpaque: false };
    const bytes = this.#inodes.read(at, size);
    const xattrs = new Map<string, Buffer>();
    let isOpaque = false;
    for (let next = 12; next + 4 <= size;) {
      const [nameBytes, prefix, valueBytes] = [
        bytes.readUInt8(next),
        bytes.readUInt8(next + 1),
        bytes.readUInt16LE(next + 2),
      ];
      const valueAt = next + 4 + nameBytes;
      if (valueAt + valueBytes > size) throw new RangeError("an attribute of them is damaged");
      const name = `${prefixes[prefix] ?? ""}${bytes.toString("latin1", next + 4, valueAt)}`;
      if (this.#exact === null && name === "trusted.overlay.opaque") isOpaque = true;
      else if (this.#exact === null ? isUsers(name) : mustKeep(prefix, name)) {
        this.#budget.take(0, name.length + valueBytes + 256);
        xattrs.set(name, Buffer.from(Uint8Array.from(bytes.subarray(valueAt, valueAt + valueBytes)).buffer));
      }
      next = valueAt + valueBytes + (-(4 + nameBytes + valueBytes) & 3);
    }
    return { xattrs, isOpaque };
  }

  /** null for what has no place in a module. */
  #node(number: bigint, inode: Inode, path: string): TreeNode | null {
    const { mode, attributes, isOpaque } = inode;
    const kind = mode & 0o170000;
    if (kind === kinds.directory) return { ...emptyDirectory(), attributes, isOpaque };
    if (kind === kinds.character && inode.data === 0) return { kind: "whiteout" };
    const node = this.#linked.get(number) ?? this.#leaf(kind, inode);
    if (node === null) this.#exact?.leaveOut(kind === kinds.socket ? "socket" : "device", path);
    else this.#linked.set(number, node);
    return node;
  }

  #leaf(kind: number, inode: Inode): TreeNode | null {
    const { attributes } = inode;
    if (kind === kinds.file) return this.#fileNode(inode);
    if (kind === kinds.symlink) return { kind: "symlink", attributes, target: this.#target(inode) };
    return kind === kinds.fifo ? { kind: "fifo", attributes } : null;
  }

  #fileNode(inode: Inode): FileNode {
    const { attributes, size, data } = inode;
    const content = { path: this.#path, offset: size === 0 ? 0 : data * blockBytes, size };
    if (inode.layout === layouts.flat || size === 0) {
      if (size > 0 && content.offset + size > this.#size) throw new RangeError("a file of them is cut off");
      return { kind: "file", attributes, content };
    }
    if (inode.layout !== layouts.chunked) throw new RangeError("a file of them is kept in an unknown way");
    return { kind: "file", attributes, content: { ...content, offset: 0 }, extents: this.#extents(inode) };
  }

  /** Chunks that are there; what is a hole in the image reads as zeroes. */
  #extents({ size, data, inlineAt }: Inode): { at: number; offset: number; size: number }[] {
    const chunkBytes = blockBytes * 2 ** (data & 31);
    const count = Math.ceil(size / chunkBytes);
    if (count > 65_536) throw new RangeError("a file of them has too many pieces");
    const table = this.#inodes.read(inlineAt, count * 4);
    const extents: { at: number; offset: number; size: number }[] = [];
    for (let index = 0; index < count; index++) {
      const block = table.readUInt32LE(index * 4);
      if (block === holeBlock) continue;
      const at = index * chunkBytes;
      const piece = { at, offset: block * blockBytes, size: Math.min(chunkBytes, size - at) };
      if (piece.offset + piece.size > this.#size) throw new RangeError("a file of them is cut off");
      const last = extents.at(-1);
      if (last?.at !== undefined && last.at + last.size === at && last.offset + last.size === piece.offset)
        last.size += piece.size;
      else extents.push(piece);
    }
    return extents;
  }

  #target({ size, layout, data, inlineAt }: Inode): string {
    if (size === 0 || size > maxLinkBytes) throw new RangeError("a symbolic link of them is damaged");
    const at = layout === layouts.inline ? inlineAt : data * blockBytes;
    return this.#inodes.read(at, size).toString("latin1");
  }

  /** The names of a directory. Each block of it has its own: numbers first, then the names, to the end of what is used. */
  *#entries({ size, data, layout }: Inode): Generator<[string, bigint]> {
    if (layout !== layouts.flat) throw new RangeError("a directory of them is kept in an unknown way");
    for (let done = 0; done < size; done += blockBytes) {
      const block = Buffer.from(this.#names.read(data * blockBytes + done, Math.min(blockBytes, size - done)));
      const count = block.length < direntBytes ? 0 : block.readUInt16LE(8) / direntBytes;
      if (!Number.isInteger(count) || count === 0 || count * direntBytes > block.length)
        throw new RangeError("a directory of them is damaged");
      for (let index = 0; index < count; index++) {
        const from = block.readUInt16LE(index * direntBytes + 8);
        const isLast = index === count - 1;
        const to = isLast ? endOfName(block, from) : block.readUInt16LE((index + 1) * direntBytes + 8);
        const name = block.toString("latin1", from, to);
        if (name === "." || name === "..") continue;
        if (name === "" || name.length > 255 || /[/\0]/.test(name)) throw new RangeError("a name of them is damaged");
        yield [name, block.readBigUInt64LE(index * direntBytes)];
      }
    }
  }
}

/** Whether an attribute is one of users, and not of an overlay that they made. */
function isUsers(name: string): boolean {
  return name.startsWith("user.") && usualName.test(name) && !name.startsWith("user.overlay.");
}

/** Throws `Unkept` for what a squashfs image, or a tar file, cannot hold. */
function mustKeep(prefix: number, name: string): true {
  if (prefixes[prefix] === undefined) throw new Unkept("it has an access list, which a squashfs image cannot hold");
  if (!usualName.test(name)) throw new Unkept(`it has an attribute with an unusual name, ${JSON.stringify(name)}`);
  return true;
}

function endOfName(block: Buffer, from: number): number {
  const end = block.indexOf(0, from);
  return end < 0 ? block.length : end;
}

/** A part of a file in memory, moved to where something is read. */
class Window {
  readonly #file: number;
  readonly #size: number;
  readonly #bytes = Buffer.allocUnsafe(windowBytes);
  #start = 0;
  #filled = 0;

  constructor(file: number, size: number) {
    this.#file = file;
    this.#size = size;
  }

  /** Valid until the next call. Throws `RangeError` beyond the end. */
  read(at: number, size: number): Buffer {
    if (at + size > this.#size) throw new RangeError("they are cut off");
    if (size > windowBytes) return readFully(this.#file, Buffer.allocUnsafe(size), at);
    if (at < this.#start || at + size > this.#start + this.#filled) {
      this.#start = at;
      this.#filled = Math.min(windowBytes, this.#size - at);
      readFully(this.#file, this.#bytes.subarray(0, this.#filled), at);
    }
    return this.#bytes.subarray(at - this.#start, at - this.#start + size);
  }
}

function readFully(file: number, target: Buffer, at: number): Buffer {
  for (let done = 0; done < target.length;) {
    const count = readSync(file, target, done, target.length - done, at + done);
    if (count === 0) throw new RangeError("they are cut off");
    done += count;
  }
  return target;
}
