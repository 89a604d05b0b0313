import fc from "fast-check";

/** Tries a property on random values, the same again with the seed that it prints. */
export function fuzz<T>(property: fc.IProperty<T>, runs: number): void {
  const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed} (set TEST_SEED to repeat)`);
  fc.assert(property, { seed, numRuns: Number(process.env["TEST_RUNS"] ?? runs) });
}
