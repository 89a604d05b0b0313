import { setImmediate } from "node:timers/promises";

/** Time that passes only when nothing else is left to do. */
export class VirtualTime {
  now = 0;
  readonly #events: { readonly at: number; readonly order: number; readonly fire: () => void }[] = [];
  #order = 0;

  /** Resolves after so many milliseconds, or when the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted === true) {
        resolve();
        return;
      }
      const fire = (): void => {
        signal?.removeEventListener("abort", fire);
        resolve();
      };
      signal?.addEventListener("abort", fire);
      this.#events.push({ at: this.now + Math.max(0, ms), order: this.#order++, fire });
    });
  }

  /** Lets time pass, and everything happen that is due. */
  async advance(ms: number): Promise<void> {
    const end = this.now + ms;
    for (;;) {
      await setImmediate();
      this.#events.sort((a, b) => a.at - b.at || a.order - b.order);
      const next = this.#events[0];
      if (next === undefined || next.at > end) break;
      this.#events.shift();
      this.now = next.at;
      next.fire();
    }
    this.now = end;
  }
}
