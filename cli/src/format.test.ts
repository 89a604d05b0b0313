import { expect, it } from "vitest";

import { formatAge, formatBytes, formatSeconds } from "./format.js";

it.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1 KiB"],
  [1536, "1.5 KiB"],
  [20 * 1024 ** 2, "20 MiB"],
  [5000 * 1024 ** 4, "5000 TiB"],
])("formatBytes(%d) is %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

it.each([
  [-1, "0s"],
  [59.9, "59s"],
  [60, "1m"],
  [3600, "1h"],
  [7500, "2h 5m"],
  [90_000, "1d 1h"],
])("formatSeconds(%d) is %s", (seconds, text) => {
  expect(formatSeconds(seconds)).toBe(text);
});

it("formatAge() counts from an RFC 3339 time, and admits that it cannot read another", () => {
  const now = new Date("2026-01-01T00:10:00Z");
  expect(formatAge("2026-01-01T00:00:00Z", now)).toBe("10m");
  expect(formatAge("yesterday", now)).toBe("?");
});
