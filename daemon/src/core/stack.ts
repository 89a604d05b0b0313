/**
 * The order of a stack, topmost first: by the number in front of the name, highest first; equal numbers by name, later names first.
 * A name without a number counts as 0. The one function that create and recovery both use.
 */
export function stackOrder(names: readonly string[]): string[] {
  return [...names].toSorted((a, b) => prefix(b) - prefix(a) || (a < b ? 1 : a > b ? -1 : 0));
}

function prefix(name: string): number {
  return Number(/^\d+/.exec(name)?.[0] ?? 0);
}
