import { constants } from "node:fs";
import { open, rename } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { dirname } from "node:path";
import { writeAtomically } from "../store/atomic-file.js";
import { unusable } from "./private-file.js";
import { readKey, readKeyIfThere } from "./read-key.js";
import { isSealedWith, type Sealed } from "./sealed-text.js";

const keyBytes = 32;

/**
 * The file with the key of the secrets. Another key comes in three steps, each of which is whole or not there at all after a crash: it is written
 * beside it as `<path>.next`, the secrets are encrypted with it, and it takes the file's place. Whoever comes in between finds the one of the
 * two that the secrets are encrypted with.
 */
export class KeyFile {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /** Throws `secrets_unusable`. */
  current(): Promise<Buffer> {
    return readKey(this.#path);
  }

  /** The key that a text was sealed with, if there is one; otherwise the present one. Ends a change of keys that a crash has cut off. Throws `secrets_unusable`. */
  async of(sealed: Sealed): Promise<Buffer> {
    const next = await this.#next();
    if (next !== null && isSealedWith(sealed, next)) {
      await this.adopt();
      return next;
    }
    return this.current();
  }

  /** The key that is to come: the one that lies beside the file already, or a new one. Throws `secrets_unusable`. */
  async prepare(): Promise<Buffer> {
    const before = await this.#next();
    if (before !== null) return before;
    const key = randomBytes(keyBytes);
    await this.#changed(() => writeAtomically(this.#nextPath, key.toString("hex"), { durable: true, mode: 0o600 }));
    return key;
  }

  /** Puts the key that is to come in the file's place. Throws `secrets_unusable`. */
  adopt(): Promise<void> {
    return this.#changed(() => rename(this.#nextPath, this.#path));
  }

  #next(): Promise<Buffer | null> {
    return readKeyIfThere(this.#nextPath);
  }

  async #changed(change: () => Promise<void>): Promise<void> {
    try {
      await change();
      const directory = await open(dirname(this.#path), constants.O_RDONLY | constants.O_DIRECTORY);
      await directory.sync().finally(() => directory.close());
    } catch (error) {
      throw unusable(this.#path, `the key could not be changed: ${(error as NodeJS.ErrnoException).code ?? "unknown"}`);
    }
  }

  get #nextPath(): string {
    return `${this.#path}.next`;
  }
}
