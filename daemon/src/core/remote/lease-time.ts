/**
 * Time, as leases need it. What is assumed of clocks, and all that is: a machine's own clock, which goes on while it is suspended, and the store's
 * go at the rate of true time to within 5 %; what the store says its time is, differs from that clock by `clockErrorMs` at most (its answers have
 * whole seconds, and may come from servers whose clocks differ); no two machines have the same id, and of a machine's processes only the newest acts
 * on its cells. Machines' clocks need not agree on the time.
 *
 * Who asks the store at a moment of its own clock knows that the store's clock showed no more then than the answer says. From that moment on, not
 * from when the answer came, a lease is counted, and three quarters of it are used: the rates differ by less than 1.05 / 0.95. Nobody else takes it
 * before the store's clock has shown `untilMs`.
 */
export interface OwnClock {
  /** milliseconds, as `Kernel.bootMs` */
  now(): number;
  /** Resolves after so many milliseconds or a little later, or when the signal aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

/** `now` as the clock, with timers of the program. */
export function ownClock(now: () => number): OwnClock {
  return {
    now,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        const end = (): void => {
          clearTimeout(timer);
          signal.removeEventListener("abort", end);
          resolve();
        };
        const timer = setTimeout(end, Math.min(Math.max(ms, 0), longestSleepMs));
        if (signal.aborted) end();
        else signal.addEventListener("abort", end);
      }),
  };
}

/** What the store's clock was found to show. */
export interface Reading {
  /** own time before the store was asked */
  readonly sentMs: number;
  /** the store's, when it answered */
  readonly serverMs: number;
}

const usedShare = 0.75;
const longestSleepMs = 2 ** 31 - 1;

/** Until when, by the own clock, a lease that ends at `untilMs` by the store's may be relied upon. */
export function ownDeadline(
  { sentMs, serverMs }: Reading,
  untilMs: number,
  options: { readonly leaseMs: number; readonly clockErrorMs: number },
): number {
  const left = Math.min(untilMs - serverMs, options.leaseMs) - 2 * options.clockErrorMs;
  return sentMs + usedShare * left;
}

/** About what the store's clock shows now. Nothing may rest on it but how long others wait. */
export function aboutServerMs({ sentMs, serverMs }: Reading, now: number): number {
  return Math.floor(serverMs + (now - sentMs));
}
