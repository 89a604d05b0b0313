/** Deadlines of cells, and the clock that they are by. */
export class FakeDeadlines {
  /** how long the machine runs */
  nowMs = 1_000_000;
  /** by index */
  readonly at = new Map<number, number>();

  set(index: number, bootMs: number | null): void {
    if (bootMs === null) this.at.delete(index);
    else this.at.set(index, bootMs);
  }

  hasPassed(index: number): boolean {
    return (this.at.get(index) ?? Infinity) <= this.nowMs;
  }

  /** Lets time pass; returns the cells whose deadline is over. */
  advance(ms: number): number[] {
    this.nowMs += ms;
    return [...this.at.keys()].filter((index) => this.hasPassed(index));
  }
}
