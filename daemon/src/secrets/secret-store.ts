import { constants } from "node:fs";
import { open, readdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import { KeyedMutex } from "../core/keyed-mutex.js";
import { parseSecret, type WrittenSecret } from "../core/secrets/parse-secret.js";
import { hasPartOf, prefixOf } from "../core/secrets/placeholder.js";
import type { Secret } from "../core/secrets/secret.js";
import { completeSecrets } from "../core/secrets/secret-set.js";
import { writeAtomically } from "../store/atomic-file.js";
import { watchFile } from "./file-watch.js";
import { KeyFile } from "./key-file.js";
import { privateIdentity, readPrivate, unusable } from "./private-file.js";
import { isSealed, seal, unseal } from "./sealed-text.js";
import { inFile, readJson, readSecrets, writeSecrets } from "./secrets-text.js";

const maxFileBytes = 16 * 1_048_576;
const usualPollMs = 5_000;

export interface SecretStoreOptions {
  readonly path: string;
  /** of the key that the file is encrypted with; null for none */
  readonly keyFile: string | null;
  /** told of what no caller learns of, and never of a value; a text is what the operator should read */
  readonly report: (error: unknown) => void;
  /** how often the file is looked at, whatever the kernel tells; another than 5 s only in tests */
  readonly pollMs?: number;
}

/** Puts secrets into force; what it throws is whoever's who changed them. */
export type UseSecrets = (secrets: readonly Secret[]) => Promise<void>;

/**
 * The secrets in their file, which the operator may change as well: it is read anew when it changes, in one step, and one that cannot be used
 * leaves what was in force as it is. Without the file there are none.
 */
export class SecretStore {
  readonly #options: SecretStoreOptions;
  readonly #key: KeyFile | null;
  readonly #mutex = new KeyedMutex();
  #use: UseSecrets = () => Promise.resolve();
  #secrets: readonly Secret[] = [];
  /** of the file as it was last looked at, good or not; "" for none */
  #identity = "";
  /** why the file cannot be used; then nothing may be written in its place */
  #problem: string | null = null;
  #stop: (() => void) | null = null;

  private constructor(options: SecretStoreOptions) {
    this.#options = options;
    this.#key = options.keyFile === null ? null : new KeyFile(options.keyFile);
  }

  /** Reads the file. One that cannot be used is reported, and there are no secrets until it can. */
  static async open(options: SecretStoreOptions): Promise<SecretStore> {
    const store = new SecretStore(options);
    await store.#sweep();
    await store.#mutex.run("", () => store.#load());
    return store;
  }

  /** By name, with their values. */
  get secrets(): readonly Secret[] {
    return this.#secrets;
  }

  /** What the operator has to put right; null for nothing. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Puts the secrets into force, and from now on whatever becomes of them. */
  async start(use: UseSecrets): Promise<void> {
    this.#use = use;
    await use(this.#secrets);
    const { path, report, pollMs = usualPollMs } = this.#options;
    this.#stop = watchFile(path, () => void this.reload().catch(report), { pollMs, report });
  }

  /** Looks whether the file has changed. */
  async reload(): Promise<void> {
    await this.#mutex.run("", async () => {
      if ((await privateIdentity(this.#options.path)) === this.#identity) return;
      const before = this.#secrets;
      await this.#load();
      if (this.#secrets !== before) await this.#use(this.#secrets).catch(this.#options.report);
    });
  }

  /**
   * Makes a secret, or replaces one whole; then what is absent of value and placeholder stays. In force when this returns. Throws
   * `invalid_request`, and `secrets_unusable` where the file cannot be read or written.
   */
  put(name: string, written: Readonly<Record<string, unknown>>): Promise<Secret> {
    return this.#change((secrets) => {
      const known = secrets.find((secret) => secret.name === name);
      const { value = known?.oauth2 === null && !isGiven(written["oauth2"]) ? known.value : undefined, ...rest } =
        written;
      const parsed = parseSecret(name, { ...rest, ...(value !== undefined && { value }) });
      const placeholder = parsed.placeholder ?? (known === undefined ? null : kept(known.placeholder, parsed.value));
      const next = [...secrets.filter((secret) => secret.name !== name), { ...parsed, placeholder }];
      return { next, result: name };
    }).then((found) => {
      const secret = this.#secrets.find((each) => each.name === found);
      if (secret === undefined) throw notFound(name);
      return secret;
    });
  }

  /** Keeps what a server has given in place of a refresh token, unless the grant is another one by now. Throws `secrets_unusable`. */
  replaceRefreshToken(name: string, before: string, after: string): Promise<void> {
    return this.#change((secrets) => {
      const next = secrets.map((secret) =>
        secret.name === name && secret.oauth2?.refreshToken === before
          ? { ...secret, oauth2: { ...secret.oauth2, refreshToken: after } }
          : secret,
      );
      return { next, result: undefined };
    });
  }

  /** When this returns, it is sent nowhere any more. Throws `secret_not_found`, `secret_in_use`, `secrets_unusable`. */
  remove(name: string): Promise<void> {
    return this.#change((secrets) => {
      if (!secrets.some((secret) => secret.name === name)) throw notFound(name);
      const user = secrets.find(({ sigv4 }) => sigv4?.secretAccessKey === name || sigv4?.sessionToken === name);
      if (user !== undefined)
        throw new SquashError("secret_in_use", `Cannot remove secret "${name}": "${user.name}" signs with it`);
      return { next: secrets.filter((secret) => secret.name !== name), result: undefined };
    });
  }

  /**
   * Encrypts the file with another key, and puts that into the key's file: a new one, or what `<key file>.next` has. Throws `secrets_unusable`, and
   * `invalid_request` where it is not encrypted.
   */
  async rekey(): Promise<void> {
    const key = this.#key;
    if (key === null) {
      const reason = "the secrets are not encrypted; set SQUASH_SECRETS_KEY_FILE to a file with a key first";
      throw new SquashError("invalid_request", `Cannot change the key: ${reason}`);
    }
    await this.#mutex.run("", async () => {
      await this.#refresh();
      await this.#write(this.#secrets, await key.prepare());
      await key.adopt();
    });
  }

  /** Lets go of the file; changes that run come to their end. */
  async close(): Promise<void> {
    this.#stop?.();
    await this.#mutex.run("", () => Promise.resolve());
  }

  /** Works on what is in the file now. */
  async #change<T>(
    edit: (secrets: readonly Secret[]) => { readonly next: readonly WrittenSecret[]; readonly result: T },
  ): Promise<T> {
    return this.#mutex.run("", async () => {
      await this.#refresh();
      const { next, result } = edit(this.#secrets);
      const { secrets } = completeSecrets(next);
      await this.#write(secrets);
      this.#secrets = secrets;
      await this.#use(secrets);
      return result;
    });
  }

  /** Throws `secrets_unusable` where the file cannot be used as it is now. */
  async #refresh(): Promise<void> {
    if ((await privateIdentity(this.#options.path)) !== this.#identity) await this.#load();
    if (this.#problem !== null)
      throw new SquashError("secrets_unusable", `${this.#problem}; until that is put right nothing can be changed`);
  }

  /** Takes over what is in the file, or keeps what there is and says why. */
  async #load(): Promise<void> {
    const { path, report } = this.#options;
    // before it is read, so that one that is replaced meanwhile is read again
    this.#identity = await privateIdentity(path);
    try {
      const file = await readPrivate(path, maxFileBytes);
      await this.#key?.current(); // one that cannot be used is told of before there is something to encrypt
      if (file === null) {
        this.#secrets = [];
      } else {
        this.#identity = file.identity;
        const found = readJson(path, file.bytes);
        const opened = await this.#opened(found);
        const { secrets, made } = inFile(path, () => completeSecrets(readSecrets(path, opened)));
        // before anybody sees them: who changes the file after that changes what is written here, not what it replaces
        if (made || (this.#key !== null && !isSealed(found))) await this.#rewrite(secrets);
        this.#secrets = secrets;
      }
      this.#problem = null;
    } catch (error) {
      // another error's text might have a piece of the file in it
      this.#problem = isSquashError(error) ? error.message : `Cannot use ${path}: squashd met a bug`;
      report(`${this.#problem}; the secrets stay as they were (${this.#secrets.length})`);
    }
  }

  async #opened(found: unknown): Promise<unknown> {
    const { path } = this.#options;
    if (!isSealed(found)) return found;
    if (this.#key === null)
      throw unusable(path, "it is encrypted; set SQUASH_SECRETS_KEY_FILE to the file with its key");
    return readJson(path, Buffer.from(unseal(path, found, await this.#key.of(found))));
  }

  /** Placeholders that were made are to be the same after a restart, and plain text is not to stay. Where that fails, they are used all the same. */
  async #rewrite(secrets: readonly Secret[]): Promise<void> {
    if ((await privateIdentity(this.#options.path)) !== this.#identity) return; // somebody is faster; it is read again
    await this.#write(secrets).catch(this.#options.report);
  }

  async #write(secrets: readonly Secret[], otherKey: Buffer | null = null): Promise<void> {
    const { path } = this.#options;
    const text = writeSecrets(secrets);
    const key = otherKey ?? (await this.#key?.current()) ?? null;
    const content = key === null ? text : seal(text, key);
    try {
      await writeAtomically(path, content, { durable: true, mode: 0o600 });
      const directory = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
      await directory.sync().finally(() => directory.close());
    } catch (error) {
      throw unusable(path, `it could not be written: ${(error as NodeJS.ErrnoException).code ?? "unknown"}`);
    }
    this.#identity = await privateIdentity(path);
  }

  /** Removes what a squashd left that was killed while it wrote: there are values in it. */
  async #sweep(): Promise<void> {
    const { path, report } = this.#options;
    const directory = dirname(path);
    try {
      for (const name of await readdir(directory))
        if (name.startsWith(`${basename(path)}.tmp-`)) await rm(join(directory, name), { force: true });
    } catch (error) {
      report(error);
    }
  }
}

/** A placeholder stays when the value changes, since sandboxes have it already, unless it would tell something of the new one. */
function kept(placeholder: string, value: string): string | null {
  return hasPartOf(placeholder, value.slice(prefixOf(value).length)) ? null : placeholder;
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function notFound(name: string): SquashError {
  return new SquashError("secret_not_found", `Cannot find secret "${name}": there is none of that name`);
}
