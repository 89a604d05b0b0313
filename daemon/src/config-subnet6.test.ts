import { describe, expect, it } from "vitest";
import { loadConfig } from "./config.js";

const six = (text: string, more: Record<string, string> = {}) =>
  loadConfig({ SQUASH_SUBNET6: text, ...more }).subnet?.ipv6 ?? null;

describe("SQUASH_SUBNET6", () => {
  it("is none unless it is set", () => {
    expect(loadConfig({}).subnet?.ipv6).toBeNull();
    expect(six("none")).toBeNull();
  });

  it("is a network with its first address and a gateway behind that", () => {
    const base = 0xfd000010_02000000n << 64n;
    expect(six("fd00:10:200::/64")).toEqual({ cidr: "fd00:10:200::/64", base, gateway: "fd00:10:200::1" });
    expect(six("2606:2800:0::/112")?.cidr).toBe("2606:2800::/112");
  });

  it.each([
    ["fd00::1/64", "must be an IPv6 network"],
    ["fd00::/63", "must be an IPv6 network"],
    ["fd00::/113", "must be an IPv6 network"],
    ["10.200.0.0/14", "must be an IPv6 network"],
    ["fd00::", "must be an IPv6 network"],
    ["fe80::/64", "not in "],
    ["ff05::/64", "not in "],
    ["::ffff:0:0/96", "not in "],
    ["2001:db8::/64", "not in 2001:db8::/32"],
    ["2002:a01:203::/64", "not in 2002::/16"],
    ["64:ff9b::/96", "not in "],
  ])("refuses %s", (text, problem) => {
    expect(() => six(text)).toThrow(problem);
  });

  it("is nothing without IPv4", () => {
    expect(() => six("fd00::/64", { SQUASH_SUBNET: "none" })).toThrow("only beside IPv4");
  });
});
