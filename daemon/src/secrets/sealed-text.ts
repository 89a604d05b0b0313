import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { unusable } from "./private-file.js";

const cipher = "aes-256-gcm";
const nonceBytes = 12;
const tagBytes = 16;
const version = 1;
const context = Buffer.from(`squash secrets ${version}`);

/** As it is on the disk, in JSON; bytes in base64. */
export interface Sealed {
  readonly sealed: number;
  readonly cipher: string;
  /** tells keys apart, and nothing of the key */
  readonly key: string;
  readonly nonce: string;
  /** what the cipher made, and the tag of 16 bytes behind it */
  readonly data: string;
}

/** Encrypts a text with AES-256-GCM under a fresh nonce. */
export function seal(text: string, key: Buffer): string {
  const nonce = randomBytes(nonceBytes);
  const sealing = createCipheriv(cipher, key, nonce).setAAD(context);
  const data = Buffer.concat([sealing.update(text, "utf8"), sealing.final(), sealing.getAuthTag()]);
  const sealed: Sealed = {
    sealed: version,
    cipher,
    key: nameOf(key),
    nonce: nonce.toString("base64"),
    data: data.toString("base64"),
  };
  return `${JSON.stringify(sealed, null, 2)}\n`;
}

/** Whether a value that was read is what `seal` writes. */
export function isSealed(value: unknown): value is Sealed {
  return typeof value === "object" && value !== null && Object.hasOwn(value, "sealed");
}

/** Whether a text was made with a key. */
export function isSealedWith({ key: name }: Sealed, key: Buffer): boolean {
  return name === nameOf(key);
}

/** Decrypts what `seal` made. Throws `secrets_unusable` where the key is another one, or any byte is not as it was. */
export function unseal(path: string, sealed: Sealed, key: Buffer): string {
  if (sealed.sealed !== version || sealed.cipher !== cipher)
    throw unusable(path, "it was encrypted by another version of squashd");
  if (!isSealedWith(sealed, key))
    throw unusable(
      path,
      "it was encrypted with another key than that of SQUASH_SECRETS_KEY_FILE; nothing of it was changed",
    );
  try {
    const data = Buffer.from(sealed.data, "base64");
    const end = data.length - tagBytes;
    const opening = createDecipheriv(cipher, key, Buffer.from(sealed.nonce, "base64"), { authTagLength: tagBytes });
    opening.setAAD(context).setAuthTag(data.subarray(Math.max(0, end)));
    return Buffer.concat([opening.update(data.subarray(0, Math.max(0, end))), opening.final()]).toString("utf8");
  } catch {
    // the reason of the cipher's says no more
    throw unusable(path, "it is damaged: what it holds is not what was encrypted; put a copy of it back");
  }
}

function nameOf(key: Buffer): string {
  return createHash("sha256").update("squash secrets key\0").update(key).digest("hex").slice(0, 16);
}
