import { endsWith } from "./snapshot-chain.js";

/**
 * Which images to merge into one, topmost first, where stacks are deeper than `bound`; null where none is. Chosen are those at the bottom that
 * the most of these stacks have in common, so that one merged image serves all of them; of several such the longest, so that what is taken
 * on top of it later stays within the bound for long. `avoid` tells what was tried in vain.
 */
export function chooseMerge(
  stacks: readonly (readonly string[])[],
  bound: number,
  avoid: (images: readonly string[]) => boolean = () => false,
): readonly string[] | null {
  const deep = stacks.filter((stack) => stack.length > bound);
  const sharers = new Map<string, number>();
  for (const stack of deep) for (const below of suffixes(stack)) count(sharers, below);
  const possible = deep.flatMap((stack) =>
    suffixes(stack).filter((images) => stack.length - images.length + 1 <= bound && !avoid(images)),
  );
  const sharersOf = (images: readonly string[]): number => sharers.get(images.join()) ?? 0;
  const [best] = possible.toSorted((a, b) => sharersOf(b) - sharersOf(a) || b.length - a.length);
  return best ?? null;
}

/** A stack in which `merged` stands for `images` at its bottom; null where it does not have these there. */
export function withMerged(
  stack: readonly string[],
  images: readonly string[],
  merged: string,
): readonly string[] | null {
  return endsWith(stack, images) ? [...stack.slice(0, stack.length - images.length), merged] : null;
}

/** All parts of a stack that reach its bottom, of two images or more. */
function suffixes(stack: readonly string[]): (readonly string[])[] {
  return Array.from({ length: stack.length - 1 }, (_, at) => stack.slice(at));
}

function count(counts: Map<string, number>, images: readonly string[]): void {
  const key = images.join();
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
