import { SquashError } from "@squash/sdk/errors";
import { errorText } from "./error-text.js";
import type { Emit } from "./events.js";
import type { CellProcess, Kernel } from "./ports.js";

const maxCells = 16_384;
const maxFailuresInARow = 5;
const retryDelayMs = 1_000;
/** a cell that is made at once takes the processor from the sandbox that the last one was taken for */
const refillDelayMs = 5;

export interface Cell {
  readonly index: number;
  readonly process: CellProcess;
  /** whether it waited in the pool */
  readonly pooled: boolean;
}

/**
 * Cells: numbers, and the pool of generic ones that are made ahead. A number belongs to one cell until that is known to be gone; it gives
 * the cell its user ids, so a sandbox that is rebuilt asks for its old one.
 */
export class Cells {
  readonly #kernel: Pick<Kernel, "makeCell" | "killCell">;
  readonly #poolSize: number;
  readonly #emit: Emit;
  readonly #used = new Set<number>();
  readonly #ready: Cell[] = [];
  #next = 0;
  #filling: Promise<void> | null = null;
  #closed = false;
  #failures = 0;
  #retry: NodeJS.Timeout | undefined;
  #refill: NodeJS.Timeout | null = null;

  constructor(
    kernel: Pick<Kernel, "makeCell" | "killCell">,
    options: { readonly poolSize: number; readonly emit: Emit },
  ) {
    this.#kernel = kernel;
    this.#poolSize = options.poolSize;
    this.#emit = options.emit;
  }

  get ready(): number {
    return this.#ready.length;
  }

  /** Marks a number as taken by a cell of an earlier squashd. */
  reserve(index: number): void {
    this.#used.add(index);
  }

  /** A cell from the pool, or a new one when the pool is dry or cannot serve. Never the same one twice. */
  async take(options: { readonly nestedUserns: boolean }): Promise<Cell> {
    const pooled = options.nestedUserns ? undefined : this.#ready.shift();
    if (pooled !== undefined) {
      this.#fillSoon();
      return pooled;
    }
    const cell = await this.#make(this.#freeIndex(), options);
    this.fill();
    return cell;
  }

  /** A new cell with a number that is reserved already. */
  remake(index: number, options: { readonly nestedUserns: boolean }): Promise<Cell> {
    return this.#make(index, options);
  }

  /** Kills a cell; returns when nothing of it is left. Idempotent. Its number stays taken. */
  async kill(index: number): Promise<void> {
    await this.#kernel.killCell(index);
  }

  /** Frees the number of a cell that is gone. */
  release(index: number): void {
    this.#used.delete(index);
  }

  /** Kills a cell and frees its number. */
  async destroy(index: number): Promise<void> {
    await this.kill(index);
    this.release(index);
  }

  /** A pooled cell died by itself: it must not be handed out. Returns whether it was one. */
  async discard(index: number): Promise<boolean> {
    const at = this.#ready.findIndex((cell) => cell.index === index);
    if (at < 0) return false;
    this.#ready.splice(at, 1);
    await this.destroy(index);
    this.fill();
    return true;
  }

  /** Refills the pool in the background, one cell at a time. */
  fill(): void {
    if (this.#closed || this.#filling !== null || this.#ready.length >= this.#poolSize) return;
    this.#filling = this.#fillUp().finally(() => {
      this.#filling = null;
    });
  }

  /** Resolves when nothing is being made, and nothing is about to be. */
  async settled(): Promise<void> {
    if (this.#refill !== null) this.#fillNow();
    await this.#filling;
  }

  /** Stops refilling and destroys what waits. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    if (this.#refill !== null) clearTimeout(this.#refill);
    await this.#filling;
    await Promise.all(this.#ready.splice(0).map((cell) => this.destroy(cell.index)));
  }

  #fillSoon(): void {
    if (this.#ready.length < this.#poolSize / 2) this.#fillNow();
    else this.#refill ??= setTimeout(() => this.#fillNow(), refillDelayMs);
  }

  #fillNow(): void {
    if (this.#refill !== null) clearTimeout(this.#refill);
    this.#refill = null;
    this.fill();
  }

  async #fillUp(): Promise<void> {
    while (!this.#closed && this.#ready.length < this.#poolSize) {
      try {
        const cell = await this.#make(this.#freeIndex(), { nestedUserns: false });
        this.#ready.push({ ...cell, pooled: true });
        this.#failures = 0;
      } catch (error) {
        this.#failed(error);
        return;
      }
    }
  }

  /** A machine that cannot make cells is told about, and tried again, but not hammered. */
  #failed(error: unknown): void {
    this.#failures++;
    this.#emit({ type: "cell.failed", error: errorText(error) });
    if (this.#closed) return;
    const delay = retryDelayMs * Math.min(this.#failures, maxFailuresInARow);
    this.#retry = setTimeout(() => this.fill(), delay);
    this.#retry.unref();
  }

  async #make(index: number, options: { readonly nestedUserns: boolean }): Promise<Cell> {
    this.#used.add(index);
    const start = performance.now();
    try {
      const process = await this.#kernel.makeCell(index, options);
      this.#emit({ type: "cell.made", durationMs: performance.now() - start });
      return { index, process, pooled: false };
    } catch (error) {
      await this.destroy(index).catch(() => undefined); // if even that fails the number stays taken, and the next start sweeps it
      throw error;
    }
  }

  /** The next free number, round and round, so that a number (and its user ids) is not reused at once. */
  #freeIndex(): number {
    for (let tries = 0; tries < maxCells; tries++) {
      const index = this.#next;
      this.#next = (this.#next + 1) % maxCells;
      if (!this.#used.has(index)) return index;
    }
    throw new SquashError("sandbox_limit", `Cannot make a cell: all ${maxCells} numbers are taken`);
  }
}
