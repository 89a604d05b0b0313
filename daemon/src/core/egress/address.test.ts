import { isIPv4, isIPv6 } from "node:net";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { covers, formatAddress, networkAt, parseAddress, parseNetwork } from "./address.js";
import type { Network } from "./address.js";
import { fuzz } from "./testing/fuzz.js";

const near = fc.oneof(
  fc.ipV4(),
  fc.ipV4Extended(),
  fc.ipV6(),
  fc.stringMatching(/^[0-9a-f:.]{1,20}$/),
  fc.stringMatching(/^[0-9a-f]{0,4}(:[0-9a-f]{0,4}){2,8}(:[0-9]{1,3}(\.[0-9]{1,3}){3})?$/),
  fc.string(),
);

describe("parseAddress()", () => {
  it("takes what Node takes, but for zones", () => {
    fuzz(
      fc.property(near, (text) => {
        const family = isIPv4(text) ? 4 : isIPv6(text) && !text.includes("%") ? 6 : null;
        expect(parseAddress(text)?.family ?? null).toBe(family);
      }),
      2000,
    );
  });

  it("reads what formatAddress() writes", () => {
    const address = fc.oneof(
      fc.record({ family: fc.constant(4 as const), value: fc.bigInt(0n, 2n ** 32n - 1n) }),
      fc.record({ family: fc.constant(6 as const), value: fc.bigInt(0n, 2n ** 128n - 1n) }),
    );
    fuzz(
      fc.property(address, (one) => {
        expect(parseAddress(formatAddress(one))).toEqual(one);
      }),
      1000,
    );
  });

  it.each([
    ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["::ffff:1.2.3.4", "::ffff:102:304"],
    ["0:0:0:0:0:0:0:0", "::"],
    ["::1", "::1"],
    ["255.255.255.255", "255.255.255.255"],
  ])("%s is %s", (text, canonical) => {
    expect(formatAddress(parseAddress(text)!)).toBe(canonical);
  });
});

describe("parseNetwork()", () => {
  it.each(["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8/8", "10/8", "a/8", "::/129", "::1/127"])(
    "refuses %s",
    (text) => {
      expect(parseNetwork(text)).toBe(null);
    },
  );
});

describe("covers()", () => {
  const network = (text: string): Network => parseNetwork(text)!;

  it.each([
    ["10.0.0.0/8", "10.0.0.0/8", true],
    ["10.0.0.0/8", "10.1.0.0/16", true],
    ["10.1.0.0/16", "10.0.0.0/8", false],
    ["0.0.0.0/0", "255.255.255.255/32", true],
    ["0.0.0.0/0", "::/0", false],
    ["::/0", "0.0.0.0/0", false],
    ["2001:db8::/32", "2001:db9::/32", false],
  ])("%s covers %s: %j", (outer, inner, answer) => {
    expect(covers(network(outer), network(inner))).toBe(answer);
  });

  it("is what networkAt() makes", () => {
    const value = parseAddress("203.0.113.77")!;
    for (let prefix = 0; prefix <= 32; prefix++) expect(covers(networkAt(value, prefix), value)).toBe(true);
  });
});
