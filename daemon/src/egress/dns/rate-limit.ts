/** A token bucket: so many at once, and so many a second in the long run. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #now: () => number;
  #tokens: number;
  #filledAt: number;

  /** `now` returns milliseconds on a clock that never goes back. */
  constructor(limit: { readonly perSecond: number; readonly burst: number }, now: () => number) {
    this.#perSecond = limit.perSecond;
    this.#burst = limit.burst;
    this.#now = now;
    this.#tokens = limit.burst;
    this.#filledAt = now();
  }

  /** Takes one; returns false when there is none. */
  take(): boolean {
    this.#fill();
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** until there is one, where nobody takes one before */
  get msToNext(): number {
    this.#fill();
    return Math.max(0, ((1 - this.#tokens) / this.#perSecond) * 1000);
  }

  #fill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#filledAt) / 1000) * this.#perSecond);
    this.#filledAt = now;
  }
}

/** The same, where a bounded number waits for what comes in the next seconds, in their order: programs that ask again do so after 5 s only. */
export class Turns {
  readonly #bucket: TokenBucket;
  readonly #most: number;
  readonly #waiting: ((isIts: boolean) => void)[] = [];
  #timer: NodeJS.Timeout | null = null;

  constructor(
    limit: { readonly perSecond: number; readonly burst: number; readonly waiting: number },
    now: () => number,
  ) {
    this.#bucket = new TokenBucket(limit, now);
    this.#most = limit.waiting;
  }

  /** True at once, or when its turn has come; false where too many wait, and at the end. */
  take(): boolean | Promise<boolean> {
    if (this.#waiting.length === 0 && this.#bucket.take()) return true;
    if (this.#waiting.length >= this.#most) return false;
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#wait();
    });
  }

  /** Nobody who waits has a turn any more. */
  end(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    for (const each of this.#waiting.splice(0)) each(false);
  }

  #wait(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      while (this.#waiting.length > 0 && this.#bucket.take()) this.#waiting.shift()?.(true);
      if (this.#waiting.length > 0) this.#wait();
    }, this.#bucket.msToNext + 1).unref();
  }
}
