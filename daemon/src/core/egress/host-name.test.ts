import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hostName } from "./host-name.js";
import { fuzz } from "./testing/fuzz.js";

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 300 }),
  fc.string({
    unit: fc.constantFrom("a", "B", ".", "-", "_", "1", "0x", "ü", "。", "１", "ß", "/", "%", ":", "@", "xn--"),
  }),
);

describe("hostName()", () => {
  it("answers with one form of a name, or null", () => {
    fuzz(
      fc.property(text, (name) => {
        const normal = hostName(name);
        if (normal === null) return;
        expect(normal).toMatch(/^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$/);
        expect(normal.length).toBeLessThanOrEqual(253);
        expect(hostName(normal)).toBe(normal);
        expect(hostName(`${normal.toUpperCase()}.`)).toBe(normal);
      }),
      3000,
    );
  });

  it("answers with nothing that a URL takes for an address or for another host", () => {
    fuzz(
      fc.property(text, (name) => {
        const normal = hostName(name);
        // labels of xn-- that encode nothing are names to DNS, but not to URLs
        if (normal === null || !URL.canParse(`http://${normal}/`)) return;
        expect(new URL(`http://${normal}/`).hostname).toBe(normal);
      }),
      3000,
    );
  });
});
