import { SquashError } from "@squash/sdk/errors";
import type { SealedJson } from "./sealed-json.js";

const key = "gc/state.json";
const maxBytes = 4_096;
/** a sweep that has not said for so long that it goes on has ended */
const leaseMs = 10 * 60_000;

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

  constructor(json: SealedJson) {
    this.#json = json;
  }

  async read(signal: AbortSignal): Promise<SweepState> {
    const found = await this.#json.read(key, { maxBytes, signal });
    if (found === null) return { epoch: 0, untilMs: null, serverMs: Date.now(), etag: null };
    const { epoch, until } = found.value;
    if (!Number.isSafeInteger(epoch) || !(until === null || Number.isSafeInteger(until)))
      throw new SquashError("s3_object_invalid", `Cannot use "${key}" in the bucket: it does not say who sweeps`);
    const untilMs = until === null || (until as number) < found.serverMs ? null : (until as number);
    return { epoch: epoch as number, untilMs, serverMs: found.serverMs, etag: found.etag };
  }

  /** Begins a sweep. Throws `s3_failed` while another machine sweeps. */
  async begin(signal: AbortSignal): Promise<Sweep> {
    const state = await this.read(signal);
    if (state.untilMs !== null) throw busy();
    const sweep = new Sweep(this.#json, { ...state, epoch: state.epoch + 1 });
    await sweep.goOn(signal);
    return sweep;
  }
}

/** A sweep under way. */
class Sweep {
  readonly #json: SealedJson;
  readonly #epoch: number;
  #etag: string | null;
  #serverMs: number;

  constructor(json: SealedJson, state: SweepState) {
    this.#json = json;
    this.#epoch = state.epoch;
    this.#etag = state.etag;
    this.#serverMs = state.serverMs;
  }

  /** the store's clock, as it was told last */
  get serverMs(): number {
    return this.#serverMs;
  }

  /** Says that it goes on; to be called before each step. Throws `s3_failed` where it took too long, and another has begun. */
  goOn(signal: AbortSignal): Promise<void> {
    return this.#write(this.#serverMs + leaseMs, signal);
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
    this.#serverMs = written.serverMs;
  }
}

function busy(): SquashError {
  return new SquashError("s3_failed", "Cannot sweep the bucket: another machine does so; try again later");
}
