import fc from "fast-check";

/** Tries a property that takes time on random values, the same again with the seed that it prints. */
export async function fuzzAsync<T>(property: fc.IAsyncProperty<T>, runs: number): Promise<void> {
  const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed} (set TEST_SEED to repeat)`);
  await fc.assert(property, { seed, numRuns: Number(process.env["TEST_RUNS"] ?? runs) });
}
