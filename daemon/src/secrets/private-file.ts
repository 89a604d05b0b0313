import { constants, type BigIntStats } from "node:fs";
import { open, stat, type FileHandle } from "node:fs/promises";
import { SquashError } from "@squash/sdk/errors";

export interface PrivateFile {
  readonly bytes: Buffer;
  /** another one when the file was replaced or written to */
  readonly identity: string;
}

/**
 * Reads a file that only root, or whoever squashd runs as, may read and write; null where there is none. Throws `secrets_unusable` that says
 * what is wrong with it, and what to do; never anything of what it holds.
 */
export async function readPrivate(path: string, maxBytes: number): Promise<PrivateFile | null> {
  let file: FileHandle;
  try {
    // a pipe or a device in its place must not keep squashd waiting
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return null;
    if (code === "ELOOP") throw unusable(path, "it is a symbolic link; put the file itself there");
    throw unusable(path, code);
  }
  try {
    const before = await file.stat({ bigint: true });
    check(path, before, maxBytes);
    const bytes = Buffer.alloc(Number(before.size) + 1);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    const after = await file.stat({ bigint: true });
    if (identityOf(after) !== identityOf(before) || BigInt(bytesRead) !== before.size)
      throw unusable(path, "it was written to meanwhile; write it anew in one step, by renaming");
    return { bytes: bytes.subarray(0, bytesRead), identity: identityOf(before) };
  } finally {
    await file.close();
  }
}

/** What `readPrivate` would say; "" where there is nothing, or nothing that can be looked at. */
export async function privateIdentity(path: string): Promise<string> {
  try {
    return identityOf(await stat(path, { bigint: true }));
  } catch {
    return ""; // whoever reads it next learns why
  }
}

export function unusable(path: string, problem: string): SquashError {
  return new SquashError("secrets_unusable", `Cannot use ${path}: ${problem}`);
}

function check(path: string, { mode, uid, size }: BigIntStats, maxBytes: number): void {
  const kind = Number(mode) & constants.S_IFMT;
  if (kind !== constants.S_IFREG) throw unusable(path, "it is no ordinary file");
  if (uid !== 0n && Number(uid) !== process.getuid?.())
    throw unusable(path, `it belongs to user ${uid}; say: chown root ${path}`);
  if ((Number(mode) & 0o077) !== 0)
    throw unusable(
      path,
      `its mode ${(Number(mode) & 0o7777).toString(8)} lets others read or write it; say: chmod 600 ${path}`,
    );
  if (size > BigInt(maxBytes)) throw unusable(path, `it is larger than ${maxBytes} bytes`);
}

function identityOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(" ");
}
