import { createHash } from "node:crypto";

/** Source of the format: Linux, fs/erofs/erofs_fs.h. All numbers are little-endian. */
const blockBytes = 4096;
const superOffset = 1024;
const slotBytes = 32;
const inodeBytes = 64;
const direntBytes = 12;
const attributeHeadBytes = 12;
const noBlock = 0xffff_ffff;
const magic = 0xe0f5_e1e2;
const hasTimes = 2;
const extendedFlat = 1;
const types = { file: { mode: 0o100000, number: 1 }, directory: { mode: 0o040000, number: 2 } } as const;
/** a whole name stands for an access list */
const prefixes = [
  ["user.", 1],
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
  ["trusted.", 4],
  ["security.", 6],
] as const;

/** What a file has besides its content. */
export interface ImageAttributes {
  /** permission bits, with set-user-id, set-group-id and sticky */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** seconds since 1970 */
  readonly mtimeS: number;
  /** names hold a byte in each character (latin1) */
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

interface ImageFile {
  readonly kind: "file";
  readonly attributes: ImageAttributes;
  readonly content: Buffer;
}

export interface ImageDirectory {
  readonly kind: "directory";
  readonly attributes: ImageAttributes;
  /** by name, a byte in each character (latin1) */
  readonly children: Map<string, ImageNode>;
}

export type ImageNode = ImageFile | ImageDirectory;

interface Placed {
  readonly node: ImageNode;
  readonly parent: ImageNode;
  readonly attributes: Buffer;
  /** where its inode is, in slots from the first one */
  readonly slot: number;
}

/**
 * An uncompressed erofs image of a small tree. The same tree gives the same bytes. Throws `RangeError` for a directory whose names need more
 * than a block, or attributes that the format has no room for.
 */
export function erofsImage(root: ImageDirectory): Buffer {
  const placed = place(root);
  const blocks = new Blocks();
  const inodes = Buffer.alloc(roundUp(sizeOfInodes(placed), blockBytes));
  const slotOf = new Map(placed.map(({ node, slot }) => [node, slot]));
  for (const [index, one] of placed.entries()) {
    const { node } = one;
    const data = node.kind === "file" ? node.content : listing(node, one.parent, slotOf);
    writeInode(inodes, one, { number: index + 1, size: data.length, block: blocks.add(data) });
  }
  const inodesAt = blocks.add(inodes);
  blocks.writeSuper({ inodes: placed.length, inodesAt });
  return blocks.bytes();
}

/** Gives every inode its place, the root the first one. */
function place(root: ImageDirectory): Placed[] {
  const placed: Placed[] = [];
  const pending: { node: ImageNode; parent: ImageNode }[] = [{ node: root, parent: root }];
  let slot = 0;
  for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
    const attributes = attributeBlock(next.node.attributes.xattrs);
    placed.push({ ...next, attributes, slot });
    // so that no inode lies in two blocks
    slot += roundUp(inodeBytes + attributes.length, inodeBytes) / slotBytes;
    if (next.node.kind === "file") continue;
    for (const name of sorted(next.node.children.keys()))
      pending.push({ node: next.node.children.get(name) ?? root, parent: next.node });
  }
  return placed;
}

function sizeOfInodes(placed: readonly Placed[]): number {
  const last = placed.at(-1);
  return last === undefined ? 0 : last.slot * slotBytes + inodeBytes + last.attributes.length;
}

function writeInode(
  inodes: Buffer,
  { node, attributes, slot }: Placed,
  { number, size, block }: { readonly number: number; readonly size: number; readonly block: number },
): void {
  const at = slot * slotBytes;
  const { mode, uid, gid, mtimeS } = node.attributes;
  inodes.writeUInt16LE(extendedFlat, at);
  inodes.writeUInt16LE(attributes.length === 0 ? 0 : (attributes.length - attributeHeadBytes) / 4 + 1, at + 2);
  inodes.writeUInt16LE(types[node.kind].mode | mode, at + 4);
  inodes.writeBigUInt64LE(BigInt(size), at + 8);
  inodes.writeUInt32LE(block, at + 16);
  inodes.writeUInt32LE(number, at + 20);
  inodes.writeUInt32LE(uid, at + 24);
  inodes.writeUInt32LE(gid, at + 28);
  inodes.writeBigInt64LE(BigInt(mtimeS), at + 32);
  inodes.writeUInt32LE(linksOf(node), at + 44);
  attributes.copy(inodes, at + inodeBytes);
}

function linksOf(node: ImageNode): number {
  if (node.kind === "file") return 1;
  return 2 + [...node.children.values()].filter(({ kind }) => kind === "directory").length;
}

/** Names of a directory: first a head for each, then the names, all sorted by bytes. */
function listing(directory: ImageDirectory, parent: ImageNode, slotOf: ReadonlyMap<ImageNode, number>): Buffer {
  const entries = new Map<string, ImageNode>([[".", directory], ["..", parent], ...directory.children]);
  const names = sorted(entries.keys());
  const size = names.reduce((sum, name) => sum + direntBytes + name.length, 0);
  if (size > blockBytes) throw new RangeError("a directory of an image has more names than a block takes");
  const bytes = Buffer.alloc(size);
  let nameAt = names.length * direntBytes;
  for (const [index, name] of names.entries()) {
    const node = entries.get(name) ?? directory;
    bytes.writeBigUInt64LE(BigInt(slotOf.get(node) ?? 0), index * direntBytes);
    bytes.writeUInt16LE(nameAt, index * direntBytes + 8);
    bytes.writeUInt8(types[node.kind].number, index * direntBytes + 10);
    nameAt += bytes.write(name, nameAt, "latin1");
  }
  return bytes;
}

/** As they lie behind an inode; nothing where there are none. */
function attributeBlock(xattrs: ReadonlyMap<string, Buffer>): Buffer {
  const pieces = [...xattrs].flatMap(([name, value]) => {
    const [prefix, number] = prefixes.find(([start]) => name.startsWith(start)) ?? ["", 0];
    const rest = Buffer.from(name.slice(prefix.length), "latin1");
    if (number === 0 || rest.length > 255 || value.length > 0xffff)
      throw new RangeError(`attribute ${JSON.stringify(name)} has no place in an image`);
    const head = Buffer.alloc(4);
    head.writeUInt8(rest.length, 0);
    head.writeUInt8(number, 1);
    head.writeUInt16LE(value.length, 2);
    const length = head.length + rest.length + value.length;
    return [head, rest, value, Buffer.alloc(roundUp(length, 4) - length)];
  });
  if (pieces.length === 0) return Buffer.alloc(0);
  const block = Buffer.concat([Buffer.alloc(attributeHeadBytes), ...pieces]);
  if (block.length > 4 * 0xffff) throw new RangeError("the attributes of a file have no place in an image");
  return block;
}

/** The image, block by block; the first one is the superblock's. */
class Blocks {
  readonly #pieces: Buffer[] = [Buffer.alloc(blockBytes)];
  #count = 1;

  /** Returns the number of its first block; of nothing there is none. */
  add(data: Buffer): number {
    if (data.length === 0) return noBlock;
    const first = this.#count;
    const padding = roundUp(data.length, blockBytes) - data.length;
    this.#pieces.push(data, Buffer.alloc(padding));
    this.#count += (data.length + padding) / blockBytes;
    return first;
  }

  writeSuper({ inodes, inodesAt }: { readonly inodes: number; readonly inodesAt: number }): void {
    const block = this.#pieces[0];
    if (block === undefined) throw new Error("an image has no first block");
    block.writeUInt32LE(magic, superOffset);
    block.writeUInt32LE(hasTimes, superOffset + 8);
    block.writeUInt8(Math.log2(blockBytes), superOffset + 12);
    block.writeBigUInt64LE(BigInt(inodes), superOffset + 16);
    block.writeUInt32LE(this.#count, superOffset + 36);
    block.writeUInt32LE(inodesAt, superOffset + 40);
  }

  /** With a UUID of its own, made of all the rest. Source of its form: RFC 9562 §5.8, version 8. */
  bytes(): Buffer {
    const all = Buffer.concat(this.#pieces);
    const uuid = createHash("sha256").update(all).digest().subarray(0, 16);
    uuid.writeUInt8((uuid.readUInt8(6) & 0x0f) | 0x80, 6);
    uuid.writeUInt8((uuid.readUInt8(8) & 0x3f) | 0x80, 8);
    uuid.copy(all, superOffset + 48);
    return all;
  }
}

function sorted(names: Iterable<string>): string[] {
  return [...names].toSorted((a, b) => (a < b ? -1 : 1));
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
