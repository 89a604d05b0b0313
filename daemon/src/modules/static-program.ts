import { open } from "node:fs/promises";

const interpreterHeader = 3; // PT_INTERP
const headerBytes = 4_096;

/** Whether a file is a 64-bit little-endian ELF program that needs no shared library loader. Source: elf(5). */
export async function isStaticProgram(path: string): Promise<boolean> {
  await using file = await open(path, "r");
  const { bytesRead, buffer } = await file.read(Buffer.alloc(headerBytes), 0, headerBytes, 0);
  const bytes = buffer.subarray(0, bytesRead);
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) return false;
  const [offset, size, count] = [Number(bytes.readBigUInt64LE(32)), bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  for (let header = 0; header < count; header++) {
    const at = offset + header * size;
    if (at + 4 > bytes.length || bytes.readUInt32LE(at) === interpreterHeader) return false;
  }
  return count > 0;
}
