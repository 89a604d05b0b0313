import { readdir, rename, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { makePair, readPair, type AuthorityPair } from "./authority-pair.js";
import { checkOwnedDirectory, makeDirectory, readOwned, syncDirectory } from "./owned-file.js";

const certificateFile = "ca.crt";
const keyFile = "ca.key";
const previousDirectory = "previous";
const nextDirectory = "next";

/**
 * The authority that certificates of intercepted hosts are from, one for an installation: `ca.crt` and `ca.key` in a directory of its own,
 * and those that it took the place of as long as the root of some sandbox trusts them, in `previous/<fingerprint>/`. Made once; what is
 * damaged, does not belong together or has expired is an error, and never replaced in silence: sandboxes trust it.
 */
export class CertificateAuthority {
  readonly #directory: string;
  #current: AuthorityPair;
  readonly #previous: Map<string, AuthorityPair>;

  private constructor(directory: string, current: AuthorityPair, previous: readonly AuthorityPair[]) {
    this.#directory = directory;
    this.#current = current;
    this.#previous = new Map(previous.map((pair) => [pair.fingerprint, pair]));
  }

  /** Reads what is there, or makes it where there is none. Throws `SquashError` "invalid_state" that says what to do. */
  static async open(directory: string): Promise<CertificateAuthority> {
    try {
      if ((await namesIn(directory)).length === 0) await makeDirectory(directory, filesOf(makePair()));
      await checkOwnedDirectory(directory);
      await finishRotation(directory);
      const current = await readPairIn(directory);
      const previous = join(directory, previousDirectory);
      const pairs: AuthorityPair[] = [];
      for (const name of await namesIn(previous)) {
        if (/^[0-9a-f]{64}$/.test(name)) pairs.push(await readPairIn(join(previous, name)));
      }
      return new CertificateAuthority(directory, current, pairs);
    } catch (error) {
      throw unusable(directory, error);
    }
  }

  get current(): Omit<AuthorityPair, "keyPem"> {
    const { fingerprint, certificatePem, notAfter } = this.#current;
    return { fingerprint, certificatePem, notAfter };
  }

  /** The present one first. */
  all(): readonly AuthorityPair[] {
    return [this.#current, ...this.#previous.values()];
  }

  /** Puts a new one in its place. The present one stays for the sandboxes that trust it; older ones, where they are in use. */
  async rotate(inUse: Iterable<string>): Promise<void> {
    const old = this.#current;
    const next = makePair();
    await this.#keep(old);
    await makeDirectory(join(this.#directory, nextDirectory), filesOf(next));
    await finishRotation(this.#directory);
    this.#previous.set(old.fingerprint, old);
    this.#current = next;
    const used = new Set(inUse).add(old.fingerprint);
    await this.forget([...this.#previous.keys()].filter((fingerprint) => !used.has(fingerprint)));
  }

  /** Removes previous ones that no sandbox trusts any more; idempotent. */
  async forget(notInUse: Iterable<string>): Promise<void> {
    for (const fingerprint of notInUse) {
      if (!this.#previous.delete(fingerprint)) continue;
      await rm(join(this.#directory, previousDirectory, fingerprint), { recursive: true, force: true });
    }
  }

  async #keep(pair: AuthorityPair): Promise<void> {
    const previous = join(this.#directory, previousDirectory);
    if ((await namesIn(this.#directory)).includes(previousDirectory)) {
      if ((await namesIn(previous)).includes(pair.fingerprint)) return;
    } else {
      await makeDirectory(previous, {});
    }
    await makeDirectory(join(previous, pair.fingerprint), filesOf(pair));
  }
}

/**
 * Moves the pair in `next` to its place, key first. Two files cannot be replaced in one step: a crash between the two leaves the certificate
 * alone in `next`, beside its key in place, which is what this goes on from.
 */
async function finishRotation(directory: string): Promise<void> {
  const next = join(directory, nextDirectory);
  const names = await namesIn(next);
  if (names.length === 0) {
    await rmdir(next).catch(ignoreAbsent);
    return;
  }
  if (names.includes(keyFile)) await rename(join(next, keyFile), join(directory, keyFile));
  await rename(join(next, certificateFile), join(directory, certificateFile));
  await syncDirectory(directory);
  await rmdir(next);
}

async function readPairIn(directory: string): Promise<AuthorityPair> {
  const certificate = await readOwned(join(directory, certificateFile), { secret: false });
  const key = await readOwned(join(directory, keyFile), { secret: true });
  try {
    return readPair(certificate, key);
  } catch (error) {
    throw new Error(`in ${directory}, ${(error as Error).message}`, { cause: error });
  }
}

function filesOf({ certificatePem, keyPem }: AuthorityPair): Record<string, { text: string; mode: number }> {
  return { [certificateFile]: { text: certificatePem, mode: 0o644 }, [keyFile]: { text: keyPem, mode: 0o600 } };
}

/** None where there is no such directory. */
async function namesIn(directory: string): Promise<string[]> {
  return readdir(directory).catch((error: unknown) => {
    ignoreAbsent(error);
    return [];
  });
}

function ignoreAbsent(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
}

function unusable(directory: string, cause: unknown): SquashError {
  const advice =
    "put a copy of it back, or remove the directory so that a new one is made, which sandboxes of before do not trust until they are made again";
  const found = cause instanceof Error ? cause.message : String(cause);
  return new SquashError("internal", `Cannot use the proxy's certificate authority: ${found}; ${advice}`, { cause });
}
