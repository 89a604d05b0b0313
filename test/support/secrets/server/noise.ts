import { createCipheriv } from "node:crypto";

const blockBytes = 65_536;

/** So many bytes that no two places have in common; they are the same each time. */
export function* noise(bytes: number): Generator<Buffer> {
  const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16));
  const zeros = Buffer.alloc(blockBytes);
  for (let left = bytes; left > 0; left -= blockBytes)
    yield cipher.update(zeros.subarray(0, Math.min(left, blockBytes)));
}
