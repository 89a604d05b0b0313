import { createHash } from "node:crypto";
import { isSquashError } from "@squash/sdk/errors";
import { randomNumbers } from "../../../../test/support/random-numbers.js";
import { Leases } from "../remote/lease.js";
import type { OwnClock } from "../remote/lease-time.js";
import type { ObjectStore } from "../remote/object-store.js";
import { FakeObjectStore, type Fate } from "./fake-object-store.js";
import { LeaseHistory } from "./lease-history.js";
import { savedSandbox } from "./saved-sandbox.js";
import { VirtualTime } from "./virtual-time.js";

export interface WorldOptions {
  readonly seed: number;
  readonly machines: number;
  readonly ids: readonly string[];
  readonly leaseS: number;
  /** by how much a reading of the store's clock may be wrong, in either direction */
  readonly clockErrorMs: number;
  /** rates of clocks are from 1 less this to 1 more this */
  readonly drift: number;
  /** of 1,000 requests, so many go wrong in each way */
  readonly faults: number;
  /** the longest that a request takes in each direction */
  readonly slowMs: number;
  /** the longest time between two things that a machine does */
  readonly idleMs: number;
}

/** Several machines that share a store, in virtual time, where all goes wrong that may. What happens is decided by the seed alone. */
export class LeaseWorld {
  readonly history = new LeaseHistory();
  readonly #options: WorldOptions;
  readonly #time = new VirtualTime();
  readonly #random: (below: number) => number;
  readonly #store: FakeObjectStore;
  readonly #deciders = new Map<string, Process>();
  #isStoreGone = false;
  #over = false;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#random = randomNumbers(options.seed);
    const rate = this.#rate();
    const error = (): number => this.#extreme(-options.clockErrorMs, options.clockErrorMs);
    this.#store = new FakeObjectStore({
      serverMs: () => Math.floor(1e12 + this.#time.now * rate + error()),
      sleep: (ms) => this.#time.sleep(ms),
    });
    this.#store.fate = () => this.#fate();
    this.#store.written = (key, body) => this.history.written(key, body, this.#time.now);
  }

  async run(forMs: number): Promise<void> {
    for (let index = 0; index < this.#options.machines; index++) void this.#live(`m${index}`);
    void this.#weather();
    await this.#time.advance(forMs);
    this.#over = true;
  }

  #between(low: number, high: number): number {
    return low + ((high - low) * this.#random(100_001)) / 100_000;
  }

  /** Mostly one of the two. */
  #extreme(low: number, high: number): number {
    return this.#chance(400) ? low : this.#chance(700) ? high : this.#between(low, high);
  }

  #rate(): number {
    return this.#extreme(1 - this.#options.drift, 1 + this.#options.drift);
  }

  #chance(inThousand: number): boolean {
    return this.#random(1_000) < inThousand;
  }

  #fate(): Fate {
    const { faults, slowMs } = this.#options;
    const delay = (): number => (this.#chance(faults) ? this.#between(0, slowMs) : this.#between(1, 40));
    const times = { there: delay(), back: delay() };
    if (this.#isStoreGone) return { ...times, fault: "unreachable" };
    for (const fault of ["unreachable", "unanswered", "repeated"] as const)
      if (this.#chance(faults)) return { ...times, fault };
    return times;
  }

  /** Spells in which the store cannot be reached. */
  async #weather(): Promise<void> {
    while (!this.#over) {
      await this.#time.sleep(this.#between(5_000, 60_000));
      this.#isStoreGone = true;
      await this.#time.sleep(this.#between(500, this.#options.leaseS * 2_000));
      this.#isStoreGone = false;
    }
  }

  /** A machine, whose squashd is killed and started again and again. */
  async #live(machine: string): Promise<void> {
    const clock = { rate: this.#rate(), offset: this.#between(0, 1e9) };
    while (!this.#over) {
      const process = new Process(this.#time, clock);
      const leases = this.#leases(machine, process, clock);
      const end = this.#time.now + this.#between(1_000, this.#options.leaseS * 6_000);
      void this.#work(machine, leases, process);
      while (this.#time.now < end) {
        await this.#time.sleep(this.#between(100, 8_000));
        if (!this.#chance(250)) continue;
        process.pause(this.#between(100, this.#options.leaseS * 2_000));
        this.history.note("stopped", machine);
      }
      if (this.#chance(300)) {
        process.leave();
        process.pause(this.#between(100, this.#options.leaseS * 4_000));
        this.history.note("left behind", machine);
      } else {
        process.kill();
        this.history.note("killed", machine);
      }
      await this.#time.sleep(this.#between(0, 4_000));
    }
  }

  #leases(machine: string, process: Process, clock: { readonly rate: number; readonly offset: number }): Leases {
    const now = (): number => this.#time.now;
    return new Leases({
      machine,
      leaseS: this.#options.leaseS,
      store: process.guard(this.#store),
      clock: process,
      sha256: (text) => createHash("sha256").update(text).digest("hex"),
      clockErrorMs: this.#options.clockErrorMs,
      random: () => this.#random(1_000) / 1_000,
      listener: {
        // the cell's init goes on by itself until then, whatever becomes of squashd
        extended: (id, deadlineMs) => {
          if (!this.#decides(process, machine, id)) return;
          this.history.extended(id, machine, now(), (deadlineMs - clock.offset) / clock.rate);
        },
        lost: (id, reason) => {
          if (!process.isLeft) this.history.ended(id, machine, now(), reason);
        },
      },
    });
  }

  /** A machine's newest process that has had a sandbox decides over its cell; what an older one hears after that is of no effect. */
  #decides(process: Process, machine: string, id: string): boolean {
    const cell = `${machine} ${id}`;
    const decider = this.#deciders.get(cell);
    if (decider !== undefined && decider !== process && process.isLeft) return false;
    this.#deciders.set(cell, process);
    return true;
  }

  async #work(machine: string, leases: Leases, process: Process): Promise<void> {
    const forever = new AbortController().signal;
    while (!process.isLeft) {
      await process.sleep(this.#between(10, this.#options.idleMs), forever);
      const id = this.#options.ids[this.#random(this.#options.ids.length)] ?? "";
      try {
        await this.#step(id, machine, leases);
      } catch (error) {
        if (!isSquashError(error)) this.history.violations.push(`a bug: ${String(error)}`);
        this.history.note("refused", machine, isSquashError(error) ? error.code : "");
      }
    }
  }

  async #step(id: string, machine: string, leases: Leases): Promise<void> {
    if (leases.deadlineOf(id) === null) {
      await leases.acquire(id);
    } else if (this.#chance(150)) {
      this.history.ended(id, machine, this.#time.now, "released");
      await leases.release(id);
    } else {
      let label = "";
      await leases.commit(id, (before) => {
        label = `${Number(before?.latestSnapshot?.split(".")[0] ?? 0) + 1}.${machine}`;
        return savedSandbox({ latestSnapshot: label });
      });
      this.history.saved(id, machine, label);
    }
  }
}

/** What a process of a machine has of time and of the store. Killed or stopped, it does nothing more, or nothing until it goes on. */
class Process implements OwnClock {
  readonly #time: VirtualTime;
  readonly #clock: { readonly rate: number; readonly offset: number };
  isLeft = false;
  #isAlive = true;
  #pausedUntil = 0;

  constructor(time: VirtualTime, clock: { readonly rate: number; readonly offset: number }) {
    this.#time = time;
    this.#clock = clock;
  }

  now(): number {
    return this.#clock.offset + this.#time.now * this.#clock.rate;
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    await this.#time.sleep(ms / this.#clock.rate, signal);
    await this.#goesOn();
  }

  pause(ms: number): void {
    this.#pausedUntil = this.#time.now + ms;
  }

  /** Another process of the machine takes its place, while it thinks that it goes on. */
  leave(): void {
    this.isLeft = true;
  }

  kill(): void {
    this.#isAlive = false;
  }

  guard(store: ObjectStore): ObjectStore {
    const guarded = async <T>(request: Promise<T>): Promise<T> => {
      try {
        return await request;
      } finally {
        await this.#goesOn();
      }
    };
    return {
      read: (...of) => guarded(store.read(...of)),
      readRange: (...of) => guarded(store.readRange(...of)),
      head: (...of) => guarded(store.head(...of)),
      write: (...of) => guarded(store.write(...of)),
      list: (...of) => store.list(...of),
      remove: (...of) => guarded(store.remove(...of)),
    };
  }

  async #goesOn(): Promise<void> {
    while (this.#isAlive && this.#time.now < this.#pausedUntil)
      await this.#time.sleep(this.#pausedUntil - this.#time.now);
    if (!this.#isAlive) await new Promise<never>(() => undefined);
  }
}
