import { constants } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";

const maxBytes = 64 * 1024;

/** Reads a file that only squashd's own user may have written, and with `secret` only read. Throws an error that says what is wrong. */
export async function readOwned(path: string, { secret }: { readonly secret: boolean }): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const { uid, mode, size } = await checked(path, file.stat());
    if (uid !== process.getuid?.()) throw new Error(`${path} belongs to user ${uid}`);
    if ((mode & (secret ? 0o077 : 0o022)) !== 0)
      throw new Error(
        `${path} has mode ${(mode & 0o777).toString(8)}, which lets others ${secret ? "read" : "write"} it`,
      );
    if (size > maxBytes) throw new Error(`${path} is larger than ${maxBytes} bytes`);
    return await file.readFile("utf8");
  } finally {
    await file.close();
  }
}

/** Throws where others than squashd's own user may put files into a directory. */
export async function checkOwnedDirectory(path: string): Promise<void> {
  const { uid, mode } = await stat(path);
  if (uid !== process.getuid?.()) throw new Error(`${path} belongs to user ${uid}`);
  if ((mode & 0o022) !== 0)
    throw new Error(`${path} has mode ${(mode & 0o777).toString(8)}, which lets others write it`);
}

/** Makes a directory with all its files, in one step and durably. One that is there must be empty. */
export async function makeDirectory(
  path: string,
  files: Readonly<Record<string, { text: string; mode: number }>>,
): Promise<void> {
  const temporary = `${path}.new`;
  await rm(temporary, { recursive: true, force: true }); // what an earlier squashd did not come to the end of
  await mkdir(temporary, { mode: 0o700 });
  for (const [name, { text, mode }] of Object.entries(files)) {
    const file = await open(join(temporary, name), "wx", mode);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
  }
  await syncDirectory(temporary);
  await rename(temporary, path);
  await syncDirectory(dirname(path));
}

/** Makes renames in a directory last. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

async function checked<T extends { isFile(): boolean }>(path: string, found: Promise<T>): Promise<T> {
  const facts = await found;
  if (!facts.isFile()) throw new Error(`${path} is not a plain file`);
  return facts;
}
