/** Whole numbers from 0 to below a limit, of at most 2^24, that are the same for the same seed. Source: a linear congruential generator of Numerical Recipes */
export function randomNumbers(seed: number): (below: number) => number {
  let value = seed >>> 0;
  return (below) => {
    value = (Math.imul(value, 1_664_525) + 1_013_904_223) >>> 0;
    return (value >>> 8) % below; // the lower bits repeat themselves too soon
  };
}
