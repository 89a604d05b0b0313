import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { Piece } from "./piece-reader.js";

const readBytes = 262_144;

/** Which pieces, by their numbers, a file has at their places; null where there is no file. */
export async function matchingPieces(
  path: string,
  pieces: readonly Piece[],
  signal: AbortSignal,
): Promise<ReadonlySet<number> | null> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw error;
  });
  if (file === null) return null;
  await using owned = file;
  const found = new Set<number>();
  const buffer = Buffer.allocUnsafe(readBytes);
  let position = 0;
  for (const [index, { sha256, size }] of pieces.entries()) {
    signal.throwIfAborted();
    const hash = createHash("sha256");
    for (let done = 0; done < size;) {
      const { bytesRead } = await owned.read(buffer, 0, Math.min(readBytes, size - done), position + done);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
      done += bytesRead;
    }
    if (hash.digest("hex") === sha256) found.add(index);
    position += size;
  }
  return found;
}
