/** Bytes in pieces, cut at places in any order; those beyond the end cut nothing. */
export function cutAt(bytes: Buffer, places: readonly number[]): Buffer[] {
  const cuts = [...new Set([0, ...places.filter((place) => place < bytes.length), bytes.length])].toSorted(
    (a, b) => a - b,
  );
  return cuts.slice(1).map((end, index) => bytes.subarray(cuts[index], end));
}
