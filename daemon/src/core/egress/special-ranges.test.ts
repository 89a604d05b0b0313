import { describe, expect, it } from "vitest";
import { covers, formatAddress, networkAt, readNetwork, widthOf } from "./address.js";
import type { Family, Network } from "./address.js";
import type { EgressPolicy } from "./egress-policy.js";
import { neverOpened, specialRanges } from "./special-ranges.js";
import { policyOf } from "./testing/ask.js";

const ranges = Object.values(specialRanges).flat();
const open = policyOf("");

function isOpen(family: Family, value: bigint): boolean {
  return open.connectByAddress(formatAddress({ family, value }), 443, "tcp").allowed;
}

/** Whether no entry can open it. */
function never(range: string): boolean {
  const closed = [...neverOpened.map((one) => one.range), "::ffff:0:0/96"];
  return closed.some((one) => covers(readNetwork(one), readNetwork(range)));
}

/** A policy of one entry, the network; null for one that is refused. */
function opening(network: Network): { readonly entry: string; readonly policy: EgressPolicy | null } {
  const entry = `${formatAddress(network)}/${network.prefix}`;
  return { entry, policy: never(entry) ? null : policyOf(entry) };
}

describe("special ranges", () => {
  it.each(ranges)("are closed to their last address: %s", (range) => {
    const { family, value, prefix } = readNetwork(range);
    const last = value + 2n ** BigInt(widthOf(family) - prefix) - 1n;
    expect([isOpen(family, value), isOpen(family, last)]).toEqual([false, false]);
  });

  it.each([
    ...["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"],
    ...["169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0"],
    ...["192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0"],
    ...["198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255"],
    ...["2000::", "2000:ffff::", "2001:200::", "2001:db7:ffff::", "2001:db9::", "2001:ffff::", "2003::", "3ffe::"],
    ...["2606:4700:4700::1111", "3fff:1000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
  ])("have neighbours that are open: %s", (address) => {
    expect(open.connectByAddress(address, 443, "tcp").allowed).toBe(true);
  });

  it.each([
    ...["0.1.2.3", "10.1.2.3", "100.100.100.200", "127.0.0.53", "169.254.169.254", "172.31.0.1", "192.0.0.8"],
    ...[
      "192.0.2.1",
      "192.88.99.1",
      "192.168.1.1",
      "198.19.0.1",
      "198.51.100.1",
      "203.0.113.1",
      "239.1.1.1",
      "250.1.1.1",
    ],
    ...["::", "::1", "::7f00:1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "1fff:ffff::"],
    ...["2001::1", "2001:1ff::1", "2001:db8::1", "2002:808:808::1", "3fff:fff::1", "4000::", "5f00::1", "fc00::1"],
    ...["fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "ffff::"],
  ])("have %s", (address) => {
    expect(open.connectByAddress(address, 443, "tcp")).toEqual({ allowed: false, rule: "special address" });
  });

  it.each(ranges)("are not opened by a wider entry: %s", (range) => {
    const { family, value, prefix } = readNetwork(range);
    for (let wider = prefix - 1; wider >= 0; wider--) {
      const { policy } = opening(networkAt({ family, value }, wider));
      // where the wider one is itself in a range, or the same as one
      const answer = policy?.connectByAddress(formatAddress({ family, value }), 443, "tcp");
      if (answer !== undefined) expect(answer).toEqual({ allowed: false, rule: "special address" });
    }
  });

  it.each(ranges.filter((range) => !never(range)))("are opened by an entry of their own: %s", (range) => {
    const network = readNetwork(range);
    const { policy, entry } = opening(network);
    // what is in a narrower range stays closed
    const narrower = ranges.map(readNetwork).filter((one) => covers(network, one) && one.prefix > network.prefix);
    const last = network.value + 2n ** BigInt(widthOf(network.family) - network.prefix) - 1n;
    const host = [network.value, network.value + 2n ** 8n, last]
      .map((value) => ({ family: network.family, value }))
      .find((one) => covers(network, one) && !narrower.some((other) => covers(other, one)));
    expect(policy?.connectByAddress(formatAddress(host!), 443, "tcp")).toEqual({
      allowed: true,
      rule: `allow ${entry}`,
    });
  });

  it.each(neverOpened.map(({ range }) => range))("include what no entry opens: %s", (range) => {
    expect(ranges).toContain(range);
    const inside = ranges.filter((other) => covers(readNetwork(range), readNetwork(other)));
    expect(inside).toEqual([range]);
  });
});
