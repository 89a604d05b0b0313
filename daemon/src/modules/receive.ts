import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { SquashError } from "@squash/sdk/errors";

export interface ReceiveOptions {
  /** 64 hexadecimal digits, what it must be */
  readonly sha256: string;
  readonly maxBytes: number;
  readonly signal: AbortSignal;
}

/** errors of the disk, in distinction to those of the sender */
const diskErrors = ["ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS"];

/**
 * Writes what is sent to a new file, durably; it may only be used when this returns. Throws `digest_mismatch`, `body_too_large`, `build_failed`
 * where the disk is full, and `cancelled` where it breaks off.
 */
export async function receiveFile(
  body: AsyncIterable<Uint8Array>,
  path: string,
  { sha256, maxBytes, signal }: ReceiveOptions,
): Promise<void> {
  const hash = createHash("sha256");
  let size = 0;
  try {
    await using file = await open(path, "wx", 0o600);
    for await (const chunk of body) {
      signal.throwIfAborted();
      size += chunk.byteLength;
      if (size > maxBytes) {
        const limit = `${Math.floor(maxBytes / 1_048_576)} MiB`;
        throw new SquashError(
          "body_too_large",
          `Cannot take the upload: it is larger than ${limit}; SQUASH_MAX_UPLOAD_MB is the limit`,
        );
      }
      hash.update(chunk);
      await file.writeFile(chunk);
    }
    await file.sync();
  } catch (cause) {
    if (cause instanceof SquashError) throw cause;
    const { code = "", message } = cause as NodeJS.ErrnoException;
    if (diskErrors.includes(code))
      throw new SquashError("build_failed", `Cannot take the upload: ${message}`, { cause });
    throw new SquashError("cancelled", `Cannot take the upload: it broke off after ${size} bytes`, { cause });
  }
  const found = hash.digest("hex");
  if (found === sha256) return;
  throw new SquashError(
    "digest_mismatch",
    `Cannot take the upload: its sha-256 is ${found}, its sender said ${sha256}`,
    {
      details: { sha256: found },
    },
  );
}
