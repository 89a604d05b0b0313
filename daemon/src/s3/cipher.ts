import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from "node:crypto";

const keyBytes = 32;
const tagBytes = 16;
const nonce = Buffer.alloc(12);

/**
 * Encrypts what lies in the bucket, with AES-256-GCM. Each piece has a key of its own, made of the file's key and the piece's digest: the same
 * piece is the same bytes from every machine, no nonce can be used twice, and who has no key learns which pieces are equal, and their sizes.
 */
export class Cipher {
  readonly #key: Buffer;

  /** `key` has 32 bytes. */
  constructor(key: Buffer) {
    if (key.byteLength !== keyBytes) throw new Error(`a key of ${keyBytes} bytes is needed, not of ${key.byteLength}`);
    this.#key = key;
  }

  /** What a piece is called: 64 hexadecimal digits that do not tell its digest. */
  nameOf(sha256: string): string {
    return createHmac("sha256", this.#key).update(`name ${sha256}`).digest("hex");
  }

  sealedSize(size: number): number {
    return size + tagBytes;
  }

  /** `subject` must never be that of other bytes, as a digest is, or a key with a number that is used once. */
  seal(subject: string, plain: Uint8Array): Buffer {
    const cipher = createCipheriv("aes-256-gcm", this.#keyOf(subject), nonce);
    return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  /** null where it was sealed with another key or as something else, or was changed since. */
  open(subject: string, sealed: Buffer, size = sealed.byteLength - tagBytes): Buffer | null {
    if (size < 0 || sealed.byteLength !== size + tagBytes) return null;
    const decipher = createDecipheriv("aes-256-gcm", this.#keyOf(subject), nonce, { authTagLength: tagBytes });
    decipher.setAuthTag(sealed.subarray(size));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(0, size)), decipher.final()]);
    } catch {
      return null;
    }
  }

  #keyOf(subject: string): Buffer {
    return Buffer.from(hkdfSync("sha256", this.#key, subject, "squash piece", keyBytes));
  }
}
