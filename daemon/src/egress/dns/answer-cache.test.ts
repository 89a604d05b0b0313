import { expect, it } from "vitest";
import { AnswerCache } from "./answer-cache.js";

const outcome = { records: [{ type: "A", data: "192.0.2.1" }] } as const;

it("counts the TTL down, and forgets what has none left", () => {
  let now = 0;
  const cache = new AnswerCache({ entries: 10, bytes: 10_000 }, () => now);
  cache.set("a", outcome, { ttlS: 5, bytes: 0 });
  expect(cache.get("a")).toEqual({ outcome, ttlS: 5 });
  now = 1_001;
  expect(cache.get("a")?.ttlS).toBe(4);
  now = 4_999;
  expect(cache.get("a")?.ttlS).toBe(1);
  now = 5_000;
  expect(cache.get("a")).toBeUndefined();
});

it("keeps no more entries than it may, and the ones last asked for", () => {
  const cache = new AnswerCache({ entries: 3, bytes: 10_000 }, () => 0);
  for (const key of ["a", "b", "c"]) cache.set(key, outcome, { ttlS: 5, bytes: 0 });
  cache.get("a");
  cache.set("d", outcome, { ttlS: 5, bytes: 0 });
  expect(["a", "b", "c", "d"].map((key) => cache.get(key) !== undefined)).toEqual([true, false, true, true]);
});

it("keeps no more bytes than it may", () => {
  const cache = new AnswerCache({ entries: 100, bytes: 10_000 }, () => 0);
  for (const key of ["a", "b", "c"]) cache.set(key, outcome, { ttlS: 5, bytes: 4_000 });
  cache.set("c", outcome, { ttlS: 5, bytes: 4_000 });
  expect(["a", "b", "c"].map((key) => cache.get(key) !== undefined)).toEqual([false, true, true]);
});
