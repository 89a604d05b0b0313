import { describe, expect, it } from "vitest";
import { clientElements, difference, learnedElements, type FirewallClient } from "./elements.js";
import { addressNumber, addressValue, type FirewallElement } from "./firewall.js";
import { blocksOf } from "./length-blocks.js";
import { policyOf } from "./testing/ask.js";
import { describeElements } from "./testing/kernel-sets.js";

const address = addressNumber("10.200.0.7");

function client(allow: string, deny = "", more: Partial<FirewallClient> = {}): FirewallClient {
  return {
    index: 5,
    address,
    address6: null,
    policy: policyOf(allow, deny),
    hasSecrets: false,
    connectionsPerS: null,
    ...more,
  };
}

/** "sq5h" in 16 bytes */
const name = "73713568000000000000000000000000";
const link = `links ${name}` + "0ac80007";
const address6 = addressValue("fd00:10:200::7") as bigint;
const own6 = "fd000010020000000000000000000007";

describe("clientElements()", () => {
  it("of an open policy are the link, the counter, DNS and the mode", () => {
    expect(describeElements(clientElements(client("")))).toEqual([
      `asking ${name}`,
      link,
      `mode ${name} 11`,
      `refused ${name}`,
    ]);
  });

  it("of a silent policy let only the link and the counter know it", () => {
    expect(describeElements(clientElements(client("none")))).toEqual([link, `refused ${name}`]);
  });

  it.each([
    ["", "", 11, false],
    ["", "evil.example", 12, true],
    ["93.184.216.34", "", 13, false],
    ["example.org", "", 14, true],
    ["93.184.216.34 *.example.org:22", "", 14, true],
    ["", "93.184.216.34", 11, false],
  ])("of %j without %j have mode %i, the proxy: %s", (allow, deny, mode, proxied) => {
    const elements = clientElements(client(allow, deny));
    expect(elements.filter(({ set }) => set === "mode")).toEqual([{ set: "mode", key: name, mark: mode }]);
    expect(elements.some(({ set, key }) => set === "proxied" && key === name)).toBe(proxied);
  });

  it("have a rate where there is a limit", () => {
    const rates = clientElements(client("", "", { connectionsPerS: 20 })).filter(({ set }) => set === "rates");
    expect(rates).toEqual([{ set: "rates", key: name, rate: 20 }]);
  });

  it("have the interface's whole name and an address above 127 in the right bytes", () => {
    const [found] = clientElements(client("none", "", { index: 262_141, address: addressNumber("250.1.2.255") }));
    // "sq262141h"
    expect(found).toEqual({ set: "links", key: "73713236323134316800000000000000" + "fa0102ff" });
  });

  it("have each entry in the map of its precision, the port in its place", () => {
    const elements = clientElements(
      client("1.2.3.4 10.1.0.0/16 0.0.0.0/0:5432 93.184.216.0/23:53/udp", "1.2.3.4:25 128.0.0.0/1 2001:db8::/32"),
    );
    const own = "0ac80007";
    expect(describeElements(elements).filter((text) => /^(net|port)/.test(text))).toEqual([
      `net1 ${own}80000000 2`,
      `net16 ${own}0a010000 1`,
      `net32 ${own}01020304 1`,
      `port0 ${own}00000000` + "06000000" + "15380000" + " 1",
      `port23 ${own}5db8d800` + "11000000" + "00350000" + " 1",
      `port32 ${own}01020304` + "06000000" + "00190000" + " 2",
    ]);
  });

  it("leave entries of IPv6 out where the sandbox has none", () => {
    const elements = clientElements(client("2606:2800::/32 [2606:2800::1]:443"));
    expect(elements.some(({ set }) => /^(net|port)|6/.test(set))).toBe(false);
  });

  it("have the link's address of IPv6, and no lengths without entries of it", () => {
    const elements = describeElements(clientElements(client("1.2.3.4", "", { address6 })));
    expect(elements.filter((text) => text.includes("6 "))).toEqual([`links6 ${name}${own6}`]);
  });

  it("have each entry of IPv6 in the map of its precision, and say which lengths are looked up", () => {
    const elements = clientElements(
      client("2606:2800::/32 [2606:2800::1]:443 [::]/0:53/udp", "2606:2800::2", { address6 }),
    );
    const to = "2606280000000000000000000000";
    const blocks = blocksOf([0, 32, 128]);
    expect(describeElements(elements).filter((text) => /6_|^lengths/.test(text))).toEqual([
      `lengths6 ${own6} ${blocks}`,
      `net6_128 ${own6}${to}0002 2`,
      `net6_32 ${own6}${to}0000 1`,
      `port6_0 ${own6}${"0".repeat(32)}11000000` + "00350000 1",
      `port6_128 ${own6}${to}0001` + "06000000" + "01bb0000 1",
    ]);
  });
});

describe("learnedElements()", () => {
  const target = "0ac80007" + "5db8d822";
  const learned = (...grants: Parameters<typeof learnedElements>[2]): FirewallElement[] =>
    learnedElements(address, addressNumber("93.184.216.34"), grants, 77);

  it("open everything, or single ports, or nothing", () => {
    expect(learned({ all: true, ports: [] })).toEqual([{ set: "learned", key: target, mark: 1, timeoutS: 77 }]);
    expect(learned({ all: false, ports: [{ port: 5432, protocol: "tcp", allowed: true }] })).toEqual([
      { set: "learned_port", key: target + "06000000" + "15380000", mark: 1, timeoutS: 77 },
    ]);
    expect(learned({ all: false, ports: [] })).toEqual([]);
  });

  it("of IPv6 are in maps of their own", () => {
    const grants = [{ all: true, ports: [{ port: 5432, protocol: "tcp", allowed: false }] }] as const;
    const key = own6 + "26062800000000000000000000000001";
    expect(describeElements(learnedElements(address6, addressValue("2606:2800::1"), grants, 77))).toEqual([
      `learned6 ${key} 1`,
      `learned6_port ${key}06000000` + "15380000 2",
    ]);
  });

  it.each([true, false])("deny where two names disagree on a port, whichever comes first: %s", (first) => {
    const grant = (allowed: boolean) => ({ all: allowed, ports: [{ port: 53, protocol: "udp" as const, allowed }] });
    expect(describeElements(learned(grant(first), grant(!first)))).toEqual([
      `learned ${target} 1`,
      `learned_port ${target}` + "11000000" + "00350000" + " 2",
    ]);
  });
});

describe("difference()", () => {
  const a: FirewallElement = { set: "asking", key: "01" };
  const b: FirewallElement = { set: "net8", key: "01", mark: 1 };
  const rate: FirewallElement = { set: "rates", key: "01", rate: 5 };

  it("is empty between equal lists, in any order, whatever their times", () => {
    expect(difference([a, b, rate], [rate, { ...b, timeoutS: 9 }, a])).toEqual({ remove: [], add: [] });
  });

  it("removes and adds, also the same key of another set", () => {
    expect(difference([a], [b])).toEqual({ remove: [a], add: [b] });
    const other: FirewallElement = { ...b, set: "net9" };
    expect(difference([b], [other])).toEqual({ remove: [b], add: [other] });
  });

  it.each([
    [b, { ...b, mark: 2 }],
    [rate, { ...rate, rate: 6 }],
  ])("exchanges what holds something else: %j", (old, next) => {
    expect(difference([a, old], [a, next])).toEqual({ remove: [old], add: [next] });
  });
});
