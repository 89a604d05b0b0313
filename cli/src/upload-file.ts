import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";

import type { Upload } from "@squash/sdk";

import type { Context } from "./context.js";
import { UsageError } from "./exit-status.js";
import { formatBytes } from "./format.js";
import type { Progress } from "./progress.js";

/** Reads a file through for its digest, and then again to send it. Throws `UsageError` for what is no file. */
export async function uploadOf(path: string, progress: Progress, context: Pick<Context, "signal">): Promise<Upload> {
  const { size } = await sizeOf(path);
  const hash = createHash("sha256");
  for await (const chunk of read(path, context.signal)) hash.update(chunk);
  return { size, sha256: hash.digest("hex"), content: counted(path, { size, progress, signal: context.signal }) };
}

async function sizeOf(path: string): Promise<{ size: number }> {
  const found = await stat(path).catch((error: unknown) => {
    throw new UsageError(`Cannot read "${path}": ${(error as Error).message}`);
  });
  if (!found.isFile()) throw new UsageError(`Cannot send "${path}": it is no file`);
  return found;
}

async function* counted(
  path: string,
  options: { size: number; progress: Progress; signal: AbortSignal },
): AsyncGenerator<Uint8Array> {
  const { size, progress, signal } = options;
  let sent = 0;
  for await (const chunk of read(path, signal)) {
    yield chunk;
    sent += chunk.length;
    progress.show(`sending ${formatBytes(size)}`, sent / Math.max(1, size));
  }
}

function read(path: string, signal: AbortSignal): AsyncIterable<Buffer> {
  return createReadStream(path, { signal, highWaterMark: 262_144 });
}
