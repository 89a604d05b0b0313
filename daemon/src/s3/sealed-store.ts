import { randomBytes } from "node:crypto";
import { invalidObject } from "../core/remote/invalid-object.js";
import type { ObjectContent, ObjectStore, WriteOptions, Written } from "../core/remote/object-store.js";
import type { Cipher } from "./cipher.js";

const magic = Buffer.from("SQE1");
const saltBytes = 16;

/** A store whose small objects are encrypted with a key, and that takes nothing which was not. */
export class SealedStore implements Pick<ObjectStore, "read" | "write"> {
  readonly #store: ObjectStore;
  readonly #cipher: Cipher | null;

  /** Without a cipher it is the store as it is, and takes nothing that is encrypted. */
  constructor(store: ObjectStore, cipher: Cipher | null) {
    this.#store = store;
    this.#cipher = cipher;
  }

  /** Throws `s3_object_invalid` besides. */
  async read(
    key: string,
    options: { readonly maxBytes: number; readonly signal: AbortSignal },
  ): Promise<ObjectContent | null> {
    const found = await this.#store.read(key, options);
    return found === null ? null : { ...found, body: this.#open(key, found.body) };
  }

  write(key: string, body: Uint8Array, options: WriteOptions): Promise<Written | null> {
    return this.#store.write(key, this.#seal(key, body), options);
  }

  #seal(key: string, plain: Uint8Array): Uint8Array {
    if (this.#cipher === null) return plain;
    const salt = randomBytes(saltBytes);
    return Buffer.concat([magic, salt, this.#cipher.seal(`${key} ${salt.toString("hex")}`, plain)]);
  }

  #open(key: string, body: Buffer): Buffer {
    const isSealed = body.subarray(0, magic.byteLength).equals(magic);
    if (this.#cipher === null) {
      if (isSealed) throw invalidObject(key, "it is encrypted, and SQUASH_S3_KEY_FILE is not set");
      return body;
    }
    if (!isSealed) throw invalidObject(key, "it is not encrypted, though SQUASH_S3_KEY_FILE is set");
    const at = magic.byteLength + saltBytes;
    const salt = body.subarray(magic.byteLength, at).toString("hex");
    const plain = this.#cipher.open(`${key} ${salt}`, body.subarray(at));
    if (plain === null)
      throw invalidObject(key, "it was not encrypted with the key of SQUASH_S3_KEY_FILE, or is damaged");
    return plain;
  }
}
