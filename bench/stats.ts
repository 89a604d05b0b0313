/** What repeated timings say, in milliseconds. */
export interface Summary {
  readonly p50: number;
  readonly p99: number;
  readonly count: number;
}

/** Times `work` one after another; `round` is its number. What it returns is passed to `after`, which is not timed. */
export async function times<T>(
  count: number,
  work: (round: number) => Promise<T>,
  after: (result: T, round: number) => Promise<unknown> = () => Promise.resolve(),
): Promise<Summary> {
  const durations: number[] = [];
  for (let round = 0; round < count; round++) {
    const start = performance.now();
    const result = await work(round);
    durations.push(performance.now() - start);
    await after(result, round);
  }
  return summarize(durations);
}

export function summarize(durations: readonly number[]): Summary {
  const sorted = durations.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return { p50: at(0.5), p99: at(0.99), count: sorted.length };
}

/** Runs `work` in `clients` endless loops for some seconds. Returns rounds per second. */
export async function rate(
  clients: number,
  seconds: number,
  work: (client: number, round: number) => Promise<unknown>,
): Promise<number> {
  const start = performance.now();
  const end = start + seconds * 1000;
  let rounds = 0;
  const loops = Array.from({ length: clients }, async (_, client) => {
    for (let round = 0; performance.now() < end; round++) {
      await work(client, round);
      rounds++;
    }
  });
  await Promise.all(loops);
  return (rounds * 1000) / (performance.now() - start);
}
