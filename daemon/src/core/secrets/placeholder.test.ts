import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hasPartOf, makePlaceholder, prefixOf } from "./placeholder.js";

const free = (): boolean => true;

describe("makePlaceholder()", () => {
  it.each([
    ["sk-ant-api03-Qm8xZr41LkTp0vBn7YcWd2HsEa", /^sk-ant-api03-[A-Za-z0-9]{26}$/],
    ["ghp_0123456789abcdefghijABCDEFGHIJ012345", /^ghp_[A-Za-z0-9]{36}$/],
    ["AKIAQ7KZ2M4X5N3PJYDT", /^AKIA[A-Z2-7]{16}$/],
    ["0f3c9a7e5b1d8246f0e1d2c3b4a59687", /^[0-9a-f]{32}$/],
    ["5f2b8c1e-77aa-4d3c-9b10-2e6f8a4c0d91", /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/],
    ["xoxb-123456789012-ABCdef", /^xoxb-[A-Za-z0-9]{12}-[A-Za-z0-9]{6}$/],
    ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLW9mLWl0", /^eyJ[\w-]{17}\.[\w-]{15}\.[\w-]{20}$/],
  ])("of %s has its shape", (value, shape) => {
    const placeholder = makePlaceholder(value, free);
    expect(placeholder).toMatch(shape);
    expect(placeholder).not.toBe(value);
    expect(makePlaceholder(value, free)).not.toBe(placeholder);
  });

  it.each(["abcd", "12345678", "aaaaaaaa", "a b c d", "------------------------"])(
    "of %s is long enough to be told from other text",
    (value) => {
      expect(makePlaceholder(value, free).length).toBeGreaterThanOrEqual(13);
    },
  );

  it("has nothing of any value, and is what a placeholder may be", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 4, maxLength: 120 }), (value) => {
        const placeholder = makePlaceholder(value, free);
        const rest = value.slice(prefixOf(value).length);
        expect(placeholder).toMatch(/^[\x21\x23-\x26\x28-\x5b\x5d-\x5f\x61-\x7e]{8,4096}$/);
        expect(placeholder.includes(value) || value.includes(placeholder)).toBe(false);
        const parts = Array.from({ length: Math.max(0, rest.length - 7) }, (_, at) => rest.slice(at, at + 8));
        expect(parts.filter((part) => placeholder.includes(part))).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });

  it("of a value that is longer than a placeholder may be is cut", () => {
    expect(makePlaceholder("k".repeat(65_536), free).length).toBeLessThanOrEqual(4_096);
  });

  it("is another one where the first is taken", () => {
    const taken: string[] = [];
    const made = makePlaceholder("0123456789abcdef", (placeholder) => taken.push(placeholder) > 3);
    expect(taken.indexOf(made)).toBe(3);
  });
});

describe("hasPartOf()", () => {
  it("finds eight characters in one piece, and a shorter text as a whole", () => {
    expect(hasPartOf("xx12345678xx", "a12345678b")).toBe(true);
    expect(hasPartOf("xx1234567xx", "a1234567b")).toBe(false);
    expect(hasPartOf("xxabcdxx", "abcd")).toBe(true);
    expect(hasPartOf("xxabcdxx", "")).toBe(false);
  });
});
