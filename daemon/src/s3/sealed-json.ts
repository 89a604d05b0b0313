import { createHash, randomBytes } from "node:crypto";
import { SquashError } from "@squash/sdk/errors";
import type { ObjectContent, ObjectStore, WriteCondition, Written } from "../core/remote/object-store.js";
import type { Cipher } from "./cipher.js";

const magic = Buffer.from("SQE1");
const saltBytes = 16;

export interface ReadJson {
  readonly value: Readonly<Record<string, unknown>>;
  readonly etag: string;
  readonly serverMs: number;
}

/**
 * Small objects of JSON that say their own digest, so that no change of a byte goes unseen, and that are encrypted where there is a key, which
 * nobody without it can make.
 */
export class SealedJson {
  readonly #store: ObjectStore;
  readonly #cipher: Cipher | null;

  constructor(store: ObjectStore, cipher: Cipher | null) {
    this.#store = store;
    this.#cipher = cipher;
  }

  /** null where there is none. Throws `s3_object_invalid` for what is not what was written. */
  async read(
    key: string,
    options: { readonly maxBytes: number; readonly signal: AbortSignal },
  ): Promise<ReadJson | null> {
    const found = await this.#store.read(key, options);
    return found === null ? null : { value: this.#parse(key, found), etag: found.etag, serverMs: found.serverMs };
  }

  /** null where the condition did not hold. */
  async write(
    key: string,
    value: object,
    options: { readonly condition?: WriteCondition; readonly signal: AbortSignal },
  ): Promise<Written | null> {
    const text = JSON.stringify({ ...value, digest: digestOf(JSON.stringify(value)) });
    return this.#store.write(key, this.#seal(key, Buffer.from(text)), options);
  }

  #seal(key: string, plain: Buffer): Buffer {
    if (this.#cipher === null) return plain;
    const salt = randomBytes(saltBytes);
    return Buffer.concat([magic, salt, this.#cipher.seal(`${key} ${salt.toString("hex")}`, plain)]);
  }

  #parse(key: string, { body }: ObjectContent): Readonly<Record<string, unknown>> {
    const value = parseObject(this.#open(key, body));
    if (value === null) throw invalid(key, "it is no JSON object");
    const { digest, ...rest } = value;
    if (digest !== digestOf(JSON.stringify(rest)))
      throw invalid(key, "it is not what was written: its digest is another");
    return rest;
  }

  #open(key: string, body: Buffer): Buffer {
    const isSealed = body.subarray(0, magic.byteLength).equals(magic);
    if (this.#cipher === null) {
      if (isSealed) throw invalid(key, "it is encrypted, and SQUASH_S3_KEY_FILE is not set");
      return body;
    }
    if (!isSealed) throw invalid(key, "it is not encrypted, though SQUASH_S3_KEY_FILE is set");
    const at = magic.byteLength + saltBytes;
    const salt = body.subarray(magic.byteLength, at).toString("hex");
    const plain = this.#cipher.open(`${key} ${salt}`, body.subarray(at));
    if (plain === null) throw invalid(key, "it was not encrypted with the key of SQUASH_S3_KEY_FILE, or is damaged");
    return plain;
  }
}

function parseObject(text: Buffer): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text.toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function invalid(key: string, what: string): SquashError {
  const hint = "put it there again from a machine that has it, or remove it";
  return new SquashError("s3_object_invalid", `Cannot use "${key}" in the bucket: ${what}; ${hint}`, {
    details: { key },
  });
}
