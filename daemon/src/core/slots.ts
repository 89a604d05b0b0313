import { SquashError } from "@squash/sdk/errors";

/** Lets so much work be under way at a time; the rest waits in turn. */
export class Slots {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /** Runs work when its turn comes. Throws `cancelled` where the signal comes first, and the work never begins; later it is the work's to hear. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (signal?.aborted === true) throw calledOff();
    if (this.#free > 0) this.#free--;
    else await this.#turn(signal);
    try {
      return await work();
    } finally {
      const [next] = this.#waiting;
      if (next === undefined) this.#free++;
      else next();
    }
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(come);
        signal?.removeEventListener("abort", giveUp);
      };
      const come = (): void => {
        leave();
        resolve();
      };
      const giveUp = (): void => {
        leave();
        reject(calledOff());
      };
      this.#waiting.add(come);
      signal?.addEventListener("abort", giveUp, { once: true });
    });
  }
}

function calledOff(): SquashError {
  return new SquashError("cancelled", "Cannot wait for other work to end: it was called off");
}
