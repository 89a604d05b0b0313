const largeSize = 1024 * 1024;

/** A bounded number of large buffers, for the connections that move the most at the moment. */
export class LargeBuffers {
  readonly #free: Buffer[] = [];
  #left: number;

  constructor(most: number) {
    this.#left = most;
  }

  /** Null when all are taken. */
  take(): Buffer | null {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#left === 0) return null;
    this.#left -= 1;
    return Buffer.allocUnsafeSlow(largeSize);
  }

  give(buffer: Buffer): void {
    this.#free.push(buffer);
  }

  /** Another one may be made in place of one that somebody may still be using. */
  giveUp(): void {
    this.#left += 1;
  }
}
