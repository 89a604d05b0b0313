import { describe, expect, it } from "vitest";
import { parsePolicy } from "./policy.js";
import { context, policyOf } from "./testing/ask.js";

describe("parsePolicy()", () => {
  // allow, deny, [silent, open, enforcesNames]
  it.each([
    ["", "", [false, true, false]],
    ["", "8.8.8.8", [false, true, false]],
    ["", "example.org", [false, true, true]],
    ["8.8.8.8", "", [false, false, false]],
    ["8.8.8.8", "*.example.org", [false, false, true]],
    ["8.8.8.8 example.org:443", "", [false, false, true]],
    ["none", "", [true, false, false]],
    ["none", "example.org", [true, false, false]],
  ])("allow %j, deny %j is %j", (allow, deny, flags) => {
    const { silent, open, enforcesNames } = policyOf(allow, deny);
    expect([silent, open, enforcesNames]).toEqual(flags);
  });

  it("takes [] as null", () => {
    expect(parsePolicy({ allow: [], deny: [] }, context).open).toBe(true);
  });

  it("throws what is no SquashError for a bad network of our own", () => {
    expect(() => parsePolicy({ allow: null, deny: [] }, { subnets: ["10.200.0.1/14"] })).toThrow(
      'Cannot read network "10.200.0.1/14"',
    );
  });

  it("closes IPv6 networks of the sandboxes, too", () => {
    const policy = parsePolicy({ allow: ["fd00::/8"], deny: [] }, { subnets: ["10.200.0.0/14", "fd12:3456::/32"] });
    expect(policy.connectByAddress("fd12:3456::1", 80, "tcp")).toEqual({
      allowed: false,
      rule: "sandboxes' own addresses",
    });
    expect(policy.connectByAddress("fd12:3457::1", 80, "tcp").allowed).toBe(true);
  });

  it("takes 512 entries in a few milliseconds at most", () => {
    const allow = Array.from({ length: 256 }, (_, at) => (at % 2 ? `[2600:${at}::]/32:${at}` : `*.n${at}.example.org`));
    const deny = Array.from({ length: 256 }, (_, at) =>
      at % 2 ? `10.${at}.0.0/16:${at}/udp` : `a.n${at}.example.org`,
    );
    const times = Array.from({ length: 30 }, () => {
      const start = performance.now();
      parsePolicy({ allow, deny }, context);
      return performance.now() - start;
    });
    // the best, as other work may come between; it is below 1
    expect(Math.min(...times)).toBeLessThan(5);
  });
});

describe("addressRules", () => {
  function rulesOf(allow: string, deny = ""): string[] {
    return policyOf(allow, deny).addressRules.map(
      ({ family, network, prefix, port, protocol, allowed, rule }) =>
        `${family} ${network}/${prefix} ${port === null ? "*" : `${port}/${protocol}`} ${allowed ? "+" : "-"} ${rule}`,
    );
  }

  it("are none of names, and none of a silent policy", () => {
    expect(rulesOf("example.org", "*.example.org:25")).toEqual([]);
    expect(rulesOf("none", "8.8.8.8")).toEqual([]);
  });

  it("are sorted, the most precise first", () => {
    expect(
      rulesOf("0.0.0.0/0 9.9.9.9 ::/0 10.0.0.0/8 [2600::]/32:443 8.8.8.8:53/udp 8.8.8.8:53", "8.8.8.8 8.0.0.0/8:25"),
    ).toEqual([
      "4 8.8.8.8/32 53/tcp + allow 8.8.8.8:53",
      "4 8.8.8.8/32 53/udp + allow 8.8.8.8:53/udp",
      "6 2600::/32 443/tcp + allow [2600::]/32:443",
      "4 8.8.8.8/32 * - deny 8.8.8.8",
      "4 9.9.9.9/32 * + allow 9.9.9.9",
      "4 8.0.0.0/8 25/tcp - deny 8.0.0.0/8:25",
      "4 10.0.0.0/8 * + allow 10.0.0.0/8",
      "4 0.0.0.0/0 * + allow 0.0.0.0/0",
      "6 ::/0 * + allow ::/0",
    ]);
  });

  it("are one for each network, port and protocol, with deny before allow", () => {
    expect(rulesOf("1.1.1.1 1.1.1.1/32 1.1.1.1:53 1.1.1.1:53/tcp", "1.1.1.1:53 1.1.1.1:53")).toEqual([
      "4 1.1.1.1/32 53/tcp - deny 1.1.1.1:53",
      "4 1.1.1.1/32 * + allow 1.1.1.1",
    ]);
    expect(rulesOf("2600::0001 [2600:0:0::1]", "2600::1")).toEqual(["6 2600::1/128 * - deny 2600::1"]);
  });

  it("have entries in special ranges, and what is harmless in deny", () => {
    expect(rulesOf("10.1.0.0/16", "127.0.0.1 10.200.0.0/14")).toEqual([
      "4 127.0.0.1/32 * - deny 127.0.0.1",
      "4 10.1.0.0/16 * + allow 10.1.0.0/16",
      "4 10.200.0.0/14 * - deny 10.200.0.0/14",
    ]);
  });
});
