import { SquashError } from "@squash/sdk/errors";
import { invalidObject } from "../core/remote/invalid-object.js";
import type { SealedJson } from "./sealed-json.js";

const key = "gc/state.json";
const maxBytes = 4_096;
/** a sweep that has not said for so long that it goes on has ended */
const leaseMs = 10 * 60_000;
const keepMs = leaseMs / 10;

/** Whether somebody sweeps the bucket, and how often that was begun. */
export interface SweepState {
  readonly epoch: number;
  /** by the store's clock; null while nobody does */
  readonly untilMs: number | null;
  readonly serverMs: number;
  /** null where nobody ever has */
  readonly etag: string | null;
}

/** One machine at a time sweeps; those that send look before and afterwards whether somebody did. */
export class Sweeps {
  readonly #json: SealedJson;
  readonly #now: () => number;

  /** `now` tells how much time goes by, in ms. */
  constructor(json: SealedJson, now: () => number = () => performance.now()) {
    this.#json = json;
    this.#now = now;
  }

  async read(signal: AbortSignal): Promise<SweepState> {
    const found = await this.#json.read(key, { maxBytes, signal });
    if (found === null) return { epoch: 0, untilMs: null, serverMs: Date.now(), etag: null };
    const { epoch, until } = found.value;
    if (!Number.isSafeInteger(epoch) || !(until === null || Number.isSafeInteger(until)))
      throw invalidObject(key, "it does not say who sweeps");
    const untilMs = until === null || (until as number) < found.serverMs ? null : (until as number);
    return { epoch: epoch as number, untilMs, serverMs: found.serverMs, etag: found.etag };
  }

  /** Begins a sweep. Throws `s3_failed` while another machine sweeps. */
  async begin(signal: AbortSignal): Promise<Sweep> {
    const state = await this.read(signal);
    if (state.untilMs !== null) throw busy();
    const sweep = new Sweep(this.#json, state.etag === null ? await this.#first(signal) : state, this.#now);
    await sweep.goOn(signal);
    return sweep;
  }

  /** Where nobody has ever swept, there is no time of the store's to begin from, and this machine's may be wrong. */
  async #first(signal: AbortSignal): Promise<SweepState> {
    const written = await this.#json.write(key, { epoch: 0, until: null }, { condition: { kind: "absent" }, signal });
    if (written === null) throw busy();
    return { epoch: 0, untilMs: null, ...written };
  }
}

/** A sweep under way. */
export class Sweep {
  readonly #json: SealedJson;
  readonly #epoch: number;
  #etag: string | null;
  #serverMs: number;
  #untilMs = Infinity;
  #saidMs: number;
  readonly #now: () => number;
  #keeping: Promise<void> | null = null;

  constructor(json: SealedJson, state: SweepState, now: () => number) {
    this.#json = json;
    this.#epoch = state.epoch + 1;
    this.#etag = state.etag;
    this.#serverMs = state.serverMs;
    this.#saidMs = now();
    this.#now = now;
  }

  /** the store's clock, as it was told last */
  get serverMs(): number {
    return this.#serverMs;
  }

  /**
   * Says that it goes on; to be called before each step. Throws `s3_failed` where it took too long: another may have begun, and those that send
   * have taken it for ended, and what they found there for kept.
   */
  async goOn(signal: AbortSignal): Promise<void> {
    const before = this.#untilMs;
    const until = Math.floor(this.#serverMs + this.#now() - this.#saidMs) + leaseMs;
    await this.#write(until, signal);
    if (this.#serverMs >= before) throw late();
    this.#untilMs = until;
  }

  /** The same, where it was not said just now; to be called in a step that takes long, as often as one likes. */
  async keep(signal: AbortSignal): Promise<void> {
    if (this.#now() - this.#saidMs < keepMs) return;
    await (this.#keeping ??= this.goOn(signal).finally(() => (this.#keeping = null)));
  }

  async end(signal: AbortSignal): Promise<void> {
    await this.#write(null, signal);
  }

  async #write(until: number | null, signal: AbortSignal): Promise<void> {
    const condition =
      this.#etag === null ? ({ kind: "absent" } as const) : ({ kind: "same", etag: this.#etag } as const);
    const written = await this.#json.write(key, { epoch: this.#epoch, until }, { condition, signal });
    if (written === null) throw busy();
    this.#etag = written.etag;
    this.#saidMs = this.#now();
    this.#serverMs = written.serverMs;
  }
}

function late(): SquashError {
  return new SquashError("s3_failed", "Cannot go on to sweep the bucket: it took too long; try again");
}

function busy(): SquashError {
  return new SquashError("s3_failed", "Cannot sweep the bucket: another machine does so; try again later");
}
