import { SquashError } from "@squash/sdk/errors";
import { randomHex } from "../random.js";
import type { OwnClock, Reading } from "./lease-time.js";
import type { ObjectStore, WriteCondition } from "./object-store.js";
import { parseManifest } from "./parse-manifest.js";
import {
  manifestKey,
  manifestText,
  maxManifestBytes,
  type Lease,
  type SandboxManifest,
  type Sha256,
} from "./sandbox-manifest.js";

/** A manifest as it was in the store at some moment. */
export interface StoredManifest {
  readonly manifest: SandboxManifest;
  readonly etag: string;
  readonly reading: Reading;
}

/** What is to be written; the rest is new with each write. */
export type NextManifest = Omit<SandboxManifest, "nonce" | "updated">;

/** Reads and writes manifests, each request with an end of its own, whatever the store does. */
export class LeaseObjects {
  readonly #store: Pick<ObjectStore, "read" | "write">;
  readonly #clock: OwnClock;
  readonly #requestMs: number;
  readonly #sha256: Sha256;

  constructor(
    store: Pick<ObjectStore, "read" | "write">,
    clock: OwnClock,
    { requestMs, sha256 }: { readonly requestMs: number; readonly sha256: Sha256 },
  ) {
    this.#sha256 = sha256;
    this.#store = store;
    this.#clock = clock;
    this.#requestMs = requestMs;
  }

  /** null where there is none. Throws `s3_object_invalid`, and what the store throws. */
  async read(id: string): Promise<StoredManifest | null> {
    const sentMs = this.#clock.now();
    const options = { maxBytes: maxManifestBytes };
    const found = await this.#within((signal) => this.#store.read(manifestKey(id), { ...options, signal }));
    if (found === null) return null;
    const manifest = parseManifest(id, found, this.#sha256);
    return { manifest, etag: found.etag, reading: { sentMs, serverMs: found.serverMs } };
  }

  /**
   * Writes where the condition holds. Else says what is there instead, which is what was to be written where an earlier try was not answered: `isOurs`.
   * Throws what the store throws; it may be written then, or be written later.
   */
  async write(
    next: NextManifest,
    condition: WriteCondition,
  ): Promise<{ readonly found: StoredManifest | null; readonly isOurs: boolean }> {
    const manifest = { ...next, nonce: randomHex(16), updated: new Date().toISOString() };
    const body = Buffer.from(manifestText(manifest, this.#sha256));
    const sentMs = this.#clock.now();
    const written = await this.#within((signal) =>
      this.#store.write(manifestKey(next.id), body, { condition, signal }),
    );
    if (written !== null)
      return { found: { manifest, etag: written.etag, reading: { sentMs, serverMs: written.serverMs } }, isOurs: true };
    const found = await this.read(next.id);
    return { found, isOurs: found?.manifest.nonce === manifest.nonce };
  }

  async #within<T>(request: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const late = new AbortController();
    const done = new AbortController();
    const timeout = this.#clock.sleep(this.#requestMs, done.signal).then(() => {
      late.abort();
      throw new SquashError("s3_unreachable", "Cannot renew a lease: the object store did not answer in time");
    });
    timeout.catch(() => undefined); // whoever is second is of no interest
    try {
      return await Promise.race([request(late.signal), timeout]);
    } finally {
      done.abort();
    }
  }
}

export function isSameLease(one: Lease | null, other: Pick<Lease, "machine" | "session">): boolean {
  return one?.machine === other.machine && one.session === other.session;
}
