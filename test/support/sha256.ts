import { createHash, createHmac } from "node:crypto";

/** SHA-256, also with a secret, as the signer of AWS's own SDK wants its hash. */
export class Sha256 {
  readonly #hash;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    const key = typeof secret === "string" || secret === undefined ? secret : Buffer.from(secret as Uint8Array);
    this.#hash = key === undefined ? createHash("sha256") : createHmac("sha256", key);
  }

  update(bytes: string | Uint8Array): void {
    this.#hash.update(bytes);
  }

  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.#hash.digest());
  }

  reset(): void {
    throw new Error("nobody starts anew");
  }
}
