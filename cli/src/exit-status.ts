/** Exit statuses of `sq` itself; `exec` and `run` otherwise exit as their command did. */
export const exitStatus = { done: 0, refused: 1, usage: 2, notStarted: 125 } as const;

const signalNumbers = { SIGINT: 2, SIGTERM: 15 } as const;

/** The reason with which the context's signal aborts. */
export class Interruption extends Error {
  override readonly name: string = "Interruption";
  readonly signal: keyof typeof signalNumbers;

  constructor(signal: keyof typeof signalNumbers) {
    super(`interrupted by ${signal}`);
    this.signal = signal;
  }

  /** 130 for Ctrl-C, as in a shell */
  get status(): number {
    return 128 + signalNumbers[this.signal];
  }
}

/** Arguments that cannot be understood: `sq` exits with 2. */
export class UsageError extends Error {
  override readonly name: string = "UsageError";
}
