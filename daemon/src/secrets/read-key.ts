import { readPrivate, unusable } from "./private-file.js";

const keyBytes = 32;
const maxKeyFile = 4_096;

/**
 * Reads a key to encrypt with, of secrets or of the bucket: 32 bytes as they are, in hexadecimal digits or in base64, in a file of root's, or of whoever
 * squashd runs as, that nobody else may read. Throws `secrets_unusable` that says what is wrong with it, and what to do.
 */
export async function readKey(path: string): Promise<Buffer> {
  const key = await readKeyIfThere(path);
  if (key === null) throw unusable(path, `there is no such file; ${hintFor(path)}`);
  return key;
}

/** The same; null where there is no such file. */
export async function readKeyIfThere(path: string): Promise<Buffer | null> {
  const file = await readPrivate(path, maxKeyFile);
  if (file === null) return null;
  const key = keyOf(file.bytes);
  if (key !== null) return key;
  const wanted = `${keyBytes} bytes, as they are, in hexadecimal digits or in base64`;
  throw unusable(path, `it is no key of ${wanted}; ${hintFor(path)}`);
}

function hintFor(path: string): string {
  return `if there never was one, make it by: head -c 32 /dev/urandom > ${path} && chmod 600 ${path}`;
}

function keyOf(bytes: Buffer): Buffer | null {
  if (bytes.length === keyBytes) return bytes;
  const text = bytes.toString("latin1").trim();
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, "hex");
  // decoding passes over what is no base64, and over bits that are left over
  const key = Buffer.from(text, "base64");
  return key.length === keyBytes && key.toString("base64") === text ? key : null;
}
