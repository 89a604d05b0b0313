import { SquashError } from "@squash/sdk/errors";
import { KeyedMutex } from "../keyed-mutex.js";
import { randomHex } from "../random.js";
import { Slots } from "../slots.js";
import { aboutServerMs, ownDeadline, type OwnClock, type Reading } from "./lease-time.js";
import { isSameLease, LeaseObjects, type NextManifest, type StoredManifest } from "./lease-object.js";
import type { ObjectStore } from "./object-store.js";
import type { Lease, SandboxManifest, SavedSandbox, Sha256 } from "./sandbox-manifest.js";

/** `taken`: another machine has it, or has had it. `expired`: it could not be renewed in time, so that another machine may have it. */
export type LeaseLoss = "taken" | "expired";

export interface LeaseListener {
  /** It may run until then, by the own clock; what there is of it is to end by itself then. */
  extended(id: string, deadlineMs: number): void;
  /** It may not run any more. Never told of what was released. */
  lost(id: string, reason: LeaseLoss): void;
}

export interface LeasesOptions {
  /** no other machine may have it, and this one has it after each start */
  readonly machine: string;
  readonly leaseS: number;
  readonly store: Pick<ObjectStore, "read" | "write">;
  readonly clock: OwnClock;
  readonly listener: LeaseListener;
  readonly sha256: Sha256;
  /** @default 1,000 */
  readonly clockErrorMs?: number;
  /** @default Math.random */
  readonly random?: () => number;
}

export interface Acquired {
  /** null where nothing was ever saved under the id */
  readonly sandbox: SavedSandbox | null;
  readonly epoch: number;
  readonly etag: string;
}

interface Held {
  readonly id: string;
  stored: StoredManifest;
  deadlineMs: number;
  readonly ended: AbortController;
}

const tries = 4;
const renewalsAtOnce = 16;

/**
 * Which sandboxes this machine may run, of those that all machines share. The manifest in the store is the one truth: every change of it is
 * conditional upon the one before, so that whoever takes a sandbox over shuts all earlier ones out, and what those still save is refused. No two
 * machines may run one at the same time, whatever happens to either of them, to the store or in between; lease-time.ts says what of clocks is assumed.
 */
export class Leases {
  readonly #self: Pick<Lease, "machine" | "session">;
  readonly #leaseMs: number;
  readonly #clockErrorMs: number;
  readonly #objects: LeaseObjects;
  readonly #clock: OwnClock;
  readonly #listener: LeaseListener;
  readonly #random: () => number;
  readonly #held = new Map<string, Held>();
  readonly #writes = new KeyedMutex();
  readonly #renewals = new Slots(renewalsAtOnce);
  #reading: Reading | null = null;
  #stopped = false;

  constructor(options: LeasesOptions) {
    const { machine, leaseS, store, clock, listener, sha256, clockErrorMs = 1_000, random = Math.random } = options;
    this.#self = { machine, session: randomHex(16) };
    this.#leaseMs = leaseS * 1_000;
    this.#clockErrorMs = clockErrorMs;
    this.#objects = new LeaseObjects(store, clock, { requestMs: this.#leaseMs / 6, sha256 });
    this.#clock = clock;
    this.#listener = listener;
    this.#random = random;
  }

  /**
   * Takes a sandbox that nobody has, or has any more, or this machine had before it started. Renews it from then on. Throws `sandbox_leased`, with
   * `details.machine` and `details.until`, `s3_object_invalid`, and what the store throws.
   */
  acquire(id: string): Promise<Acquired> {
    return this.#acquire(id, () => undefined);
  }

  /**
   * The same for one whose files are still here from before this start: only where no other machine has had it since. What is here is of the past
   * otherwise, whether or not anybody has it now. Throws `lease_lost` then.
   */
  reacquire(id: string): Promise<Acquired> {
    return this.#acquire(id, ({ lease }) => {
      if (lease?.machine === this.#self.machine) return;
      throw new SquashError("lease_lost", `Cannot go on with sandbox "${id}": another machine has had it since`);
    });
  }

  #acquire(id: string, check: (manifest: SandboxManifest) => void): Promise<Acquired> {
    return this.#writes.run(id, async () => {
      const there = this.#held.get(id);
      if (there !== undefined) return acquired(there);
      const stored = await this.#take(id, check);
      const held: Held = { id, stored, deadlineMs: -Infinity, ended: new AbortController() };
      this.#adopt(held, stored);
      // the first one of all says no time, as the store's was not known yet; and one that took long to write is renewed before anybody relies on it
      if (!this.#isInTime(held)) await this.#change(held, (sandbox) => sandbox);
      if (!this.#isInTime(held)) throw tooSlow(id);
      if (this.#stopped)
        throw new SquashError("shutting_down", `Cannot take sandbox "${id}": squashd is shutting down`);
      this.#held.set(id, held);
      this.#listener.extended(id, held.deadlineMs);
      void this.#watch(held);
      void this.#keep(held);
      return acquired(held);
    });
  }

  /** Renews it now. Throws `lease_lost`, and what the store throws. */
  renew(id: string): Promise<void> {
    return this.#writes.run(id, () => this.#change(this.#get(id), (sandbox) => sandbox));
  }

  /**
   * Saves what `change` makes of what is saved. Once it returns, whoever takes the sandbox over finds it. Throws `lease_lost` where it is not saved and never
   * will be, `s3_unreachable` where that cannot be told; `change` may be called again then, and is called again where the store has another one meanwhile.
   */
  commit(id: string, change: (sandbox: SavedSandbox | null) => SavedSandbox): Promise<void> {
    return this.#writes.run(id, () => this.#change(this.#get(id), change));
  }

  /**
   * Lets others have it, which must not run here any more. From the call on this machine may not run it, also where the store cannot be told of that and
   * this throws: others have it then when its time is over. With `forget` nothing is saved under the id any more. Idempotent.
   */
  release(id: string, { forget = false }: { readonly forget?: boolean } = {}): Promise<void> {
    const held = this.#held.get(id);
    if (held === undefined) return Promise.resolve();
    this.#end(held);
    return this.#writes.run(id, async () => {
      for (let attempt = 0; attempt < tries; attempt++) {
        const { manifest, etag } = held.stored;
        const next = { ...manifest, lease: null, ...(forget && { sandbox: null }) };
        const { found, isOurs } = await this.#objects.write(next, { kind: "same", etag });
        if (isOurs || found === null || !this.#isOwn(held, found.manifest)) return;
        held.stored = found;
      }
      throw new SquashError("s3_failed", `Cannot release sandbox "${id}": its manifest changes all the time`);
    });
  }

  /** Until when it may run, by the own clock; null where it may not. */
  deadlineOf(id: string): number | null {
    const held = this.#held.get(id);
    return held !== undefined && this.#isInTime(held) ? held.deadlineMs : null;
  }

  /** What is saved of one that this machine has; null where that is nothing. */
  saved(id: string): SavedSandbox | null {
    return this.#held.get(id)?.stored.manifest.sandbox ?? null;
  }

  /** Those that this machine has. */
  ids(): string[] {
    return [...this.#held.keys()];
  }

  /** Renews nothing any more, and tells of nothing. What is not released stays this machine's until its time is over. */
  stop(): void {
    this.#stopped = true;
    for (const held of this.#held.values()) this.#end(held);
  }

  #get(id: string): Held {
    const held = this.#held.get(id);
    if (held === undefined) throw lost(id);
    return held;
  }

  #isInTime(held: Held): boolean {
    return this.#clock.now() < held.deadlineMs;
  }

  async #take(id: string, check: (manifest: SandboxManifest) => void): Promise<StoredManifest> {
    let found = await this.#objects.read(id);
    for (let attempt = 0; attempt < tries; attempt++) {
      if (found !== null) check(found.manifest);
      const next = found === null ? this.#first(id) : this.#takenOver(found);
      const condition = found === null ? ({ kind: "absent" } as const) : ({ kind: "same", etag: found.etag } as const);
      const answer = await this.#objects.write(next, condition);
      found = answer.found;
      if (answer.isOurs && found !== null) return found;
    }
    throw new SquashError("s3_failed", `Cannot take sandbox "${id}": its manifest changes all the time`);
  }

  /** Nothing was read whose answer would say what time it is for the store. */
  #first(id: string): NextManifest {
    const now = this.#reading === null ? null : aboutServerMs(this.#reading, this.#clock.now());
    const untilMs = now === null ? 0 : now + this.#leaseMs;
    return { id, epoch: 1, lease: { ...this.#self, untilMs }, sandbox: null };
  }

  #takenOver({ manifest, reading }: StoredManifest): NextManifest {
    const { id, lease, epoch, sandbox } = manifest;
    this.#reading = reading;
    if (lease !== null && lease.machine !== this.#self.machine && reading.serverMs <= lease.untilMs) {
      const until = new Date(lease.untilMs).toISOString();
      throw new SquashError(
        "sandbox_leased",
        `Cannot take sandbox "${id}": machine "${lease.machine}" has it, until ${until} unless it renews that`,
        { details: { machine: lease.machine, until } },
      );
    }
    const untilMs = reading.serverMs + this.#leaseMs;
    return { id, epoch: epoch + 1, lease: { ...this.#self, untilMs }, sandbox };
  }

  /** Writes what `change` makes of it, and by that renews it. */
  async #change(held: Held, change: (sandbox: SavedSandbox | null) => SavedSandbox | null): Promise<void> {
    for (let attempt = 0; attempt < tries; attempt++) {
      if (held.ended.signal.aborted) throw lost(held.id);
      const { manifest, etag, reading } = held.stored;
      const untilMs = Math.max(manifest.lease?.untilMs ?? 0, aboutServerMs(reading, this.#clock.now()) + this.#leaseMs);
      const next = { ...manifest, lease: { ...this.#self, untilMs }, sandbox: change(manifest.sandbox) };
      const { found, isOurs } = await this.#objects.write(next, { kind: "same", etag });
      if (found === null || !this.#isOwn(held, found.manifest)) {
        this.#lose(held, "taken");
        throw lost(held.id);
      }
      // not what was written, but of this session: an earlier write that was not answered
      this.#adopt(held, found);
      if (isOurs) return;
    }
    throw new SquashError("s3_failed", `Cannot save sandbox "${held.id}": its manifest changes all the time`);
  }

  #isOwn(held: Held, { lease, epoch }: SandboxManifest): boolean {
    return epoch === held.stored.manifest.epoch && isSameLease(lease, this.#self);
  }

  #adopt(held: Held, stored: StoredManifest): void {
    held.stored = stored;
    this.#reading = stored.reading;
    const options = { leaseMs: this.#leaseMs, clockErrorMs: this.#clockErrorMs };
    const deadlineMs = ownDeadline(stored.reading, stored.manifest.lease?.untilMs ?? 0, options);
    if (deadlineMs <= held.deadlineMs) return;
    held.deadlineMs = deadlineMs;
    // it may be over before the answer is heard of, in a program that was stopped meanwhile
    if (this.#held.get(held.id) === held && this.#isInTime(held)) this.#listener.extended(held.id, deadlineMs);
  }

  /** Ends it in time, whatever becomes of its renewal. It looks again and again, as sleeping does not count the time while the machine is suspended. */
  async #watch(held: Held): Promise<void> {
    while (!held.ended.signal.aborted && this.#isInTime(held))
      await this.#clock.sleep(Math.min(held.deadlineMs - this.#clock.now(), this.#leaseMs / 6), held.ended.signal);
    this.#lose(held, "expired");
  }

  async #keep(held: Held): Promise<void> {
    let share = 1;
    for (;;) {
      const pause = (this.#leaseMs / 3) * share * (0.7 + 0.3 * this.#random());
      await this.#clock.sleep(pause, held.ended.signal);
      if (held.ended.signal.aborted) return;
      try {
        await this.#renewals.run(() => this.renew(held.id));
        share = 1;
      } catch {
        share = 1 / 8; // lost, of which the listener knows; or the store does not answer, and the watch ends it in time
      }
    }
  }

  #lose(held: Held, reason: LeaseLoss): void {
    const isKnown = this.#held.get(held.id) === held;
    this.#end(held);
    if (isKnown) this.#listener.lost(held.id, reason);
  }

  #end(held: Held): void {
    held.ended.abort();
    if (this.#held.get(held.id) === held) this.#held.delete(held.id);
  }
}

function acquired({ stored: { manifest, etag } }: Held): Acquired {
  return { sandbox: manifest.sandbox, epoch: manifest.epoch, etag };
}

function lost(id: string): SquashError {
  return new SquashError("lease_lost", `Cannot save sandbox "${id}": this machine may not run it any more`);
}

function tooSlow(id: string): SquashError {
  return new SquashError(
    "s3_unreachable",
    `Cannot take sandbox "${id}": the object store answers too slowly for a lease`,
  );
}
