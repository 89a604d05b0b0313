import { open } from "node:fs/promises";
import { SquashError } from "@squash/sdk/errors";
import type { ModuleFormat } from "./module-name.js";

/** mksquashfs pads an image to a multiple of 4 KiB, and packagers to more */
const maxPaddingBytes = 1_048_576;
const maxInodes = 16_000_000;
const erofsOffset = 1_024;
const headBytes = 2_048;
/** of a squashfs superblock, the smaller one */
const minBytes = 96;

export interface CheckedImage {
  readonly format: ModuleFormat;
  /** bytes of its file system; what is behind is padding, or a trailer */
  readonly end: number;
}

/**
 * Tells the format of an image by its superblock, whose figures must be possible for a file of that size. The kernel checks the rest when it
 * mounts it. Throws `module_invalid`. Source: fs/squashfs/squashfs_fs.h, fs/erofs/erofs_fs.h
 */
export async function checkImage(path: string, name: string): Promise<CheckedImage> {
  await using file = await open(path, "r");
  const { size } = await file.stat();
  const { bytesRead, buffer } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0);
  const head = buffer.subarray(0, bytesRead);
  const isSquashfs = head.length >= 96 && head.toString("latin1", 0, 4) === "hsqs";
  const isErofs = head.length >= erofsOffset + 128 && head.readUInt32LE(erofsOffset) === 0xe0f5e1e2;
  if (!isSquashfs && !isErofs) throw invalid(name, "it is neither a squashfs nor an erofs image");
  const end = isSquashfs ? squashfsEnd(head) : erofsEnd(head);
  const problem = (isSquashfs ? squashfsProblem(head) : erofsProblem(head)) ?? sizeProblem(end, size);
  if (problem !== null) throw invalid(name, problem);
  return { format: isSquashfs ? "squashfs" : "erofs", end };
}

function squashfsEnd(head: Buffer): number {
  return Number(head.readBigUInt64LE(40));
}

function erofsEnd(head: Buffer): number {
  return head.readUInt32LE(erofsOffset + 36) * 2 ** head.readUInt8(erofsOffset + 12);
}

function sizeProblem(end: number, size: number): string | null {
  if (end > size) return `it is cut off: its superblock says ${end} bytes, there are ${size}`;
  if (end >= minBytes && size - end <= maxPaddingBytes) return null;
  return `its superblock says ${end} bytes, there are ${size}`;
}

function squashfsProblem(head: Buffer): string | null {
  const [inodes, blockSize, compression, blockLog] = [
    head.readUInt32LE(4),
    head.readUInt32LE(12),
    head.readUInt16LE(20),
    head.readUInt16LE(22),
  ];
  if (head.readUInt16LE(28) !== 4 || head.readUInt16LE(30) !== 0)
    return "its superblock is of another version than 4.0";
  if (blockLog < 12 || blockLog > 20 || blockSize !== 2 ** blockLog)
    return "its superblock has an impossible block size";
  if (compression < 1 || compression > 6) return "its superblock names an unknown compression";
  if (inodes === 0 || inodes > maxInodes) return `its superblock has ${inodes} inodes`;
  // ids, xattrs, inodes, directories, fragments, exports; all ones is none
  const [used = 0n, ...tables] = [40, 48, 56, 64, 72, 80, 88].map((at) => head.readBigUInt64LE(at));
  const isOutside = tables.some((table) => table !== 0xffff_ffff_ffff_ffffn && (table < 96n || table >= used));
  return isOutside ? "its superblock has a table outside of the image" : null;
}

function erofsProblem(head: Buffer): string | null {
  const blockLog = head.readUInt8(erofsOffset + 12);
  if (blockLog < 9 || blockLog > 16) return "its superblock has an impossible block size";
  const inodes = head.readBigUInt64LE(erofsOffset + 16);
  return inodes === 0n || inodes > BigInt(maxInodes) ? `its superblock has ${inodes} inodes` : null;
}

function invalid(name: string, what: string): SquashError {
  return new SquashError("module_invalid", `Cannot take module "${name}": ${what}`, { details: { module: name } });
}
