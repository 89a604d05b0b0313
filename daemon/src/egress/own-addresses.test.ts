import type { NetworkInterfaceInfo } from "node:os";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { policyOf } from "../core/egress/testing/ask.js";
import { closedToOwn, OwnAddresses } from "./own-addresses.js";

const own = "93.184.216.34";
const open = "93.184.216.35";

function machine(...addresses: readonly string[]): OwnAddresses {
  return new OwnAddresses(() => ({ eth0: addresses.map((address) => ({ address }) as NetworkInterfaceInfo) }));
}

describe("OwnAddresses", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
  afterEach(() => void vi.useRealTimers());

  it("knows the addresses of all interfaces", () => {
    const addresses = new OwnAddresses();
    expect([addresses.has("127.0.0.1"), addresses.has("192.0.2.77")]).toEqual([true, false]);
  });

  it("looks again after five seconds, not each time", () => {
    let addresses = [own];
    let reads = 0;
    const found = new OwnAddresses(() => {
      reads += 1;
      return { eth0: addresses.map((address) => ({ address }) as NetworkInterfaceInfo), gone: undefined };
    });
    expect([found.has(own), found.has(open), reads]).toEqual([true, false, 1]);
    addresses = [open];
    vi.advanceTimersByTime(5_000);
    expect([found.has(own), reads]).toEqual([true, 1]);
    vi.advanceTimersByTime(1);
    expect([found.has(own), found.has(open), reads]).toEqual([false, true, 2]);
  });
});

describe("closedToOwn()", () => {
  const refusal = { allowed: false, rule: "address of the host" };

  it.each([
    ["", own, false],
    ["", open, true],
    ["93.184.216.0/24", own, false],
    ["93.184.216.0/24", open, true],
    ["93.184.216.34/31", own, false],
    [own, own, true],
    [`${own}/32`, own, true],
    [`${own}:443`, own, true],
    ["2606:2800::/32", "2606:2800::", false],
    ["2606:2800::", "2606:2800::", true],
  ])("with %j allowed, %s is open: %s", (allow, address, expected) => {
    const policy = closedToOwn(policyOf(allow), machine(own, "2606:2800::"));
    const verdicts = [
      policy.acceptsAnswer(address),
      policy.connectResolved(address, 443, "tcp"),
      policy.connectByAddress(address, 443, "tcp"),
    ];
    for (const verdict of verdicts) {
      expect(verdict.allowed).toBe(expected);
      if (!expected) expect(verdict).toEqual(refusal);
    }
  });

  it("lets an entry that denies the very address open nothing, nor a port open another", () => {
    expect(closedToOwn(policyOf("", own), machine(own)).acceptsAnswer(own)).toEqual(refusal);
    const policy = closedToOwn(policyOf(`${own}:22`), machine(own));
    expect(policy.connectByAddress(own, 22, "tcp").allowed).toBe(true);
    expect(policy.connectByAddress(own, 23, "tcp").allowed).toBe(false);
  });

  it("keeps the port of the API closed, whatever entries say", () => {
    const closed = closedToOwn(policyOf(own), machine(own), 7080);
    expect(closed.connectByAddress(own, 7080, "tcp")).toEqual(refusal);
    expect(closed.connectResolved(own, 7080, "tcp")).toEqual(refusal);
    expect(closed.connectByAddress(own, 7081, "tcp").allowed).toBe(true);
  });

  it("says of everything else what the policy says", () => {
    const policy = policyOf("*.example.org:22 1.2.3.4", "evil.example.org");
    const closed = closedToOwn(policy, machine(own));
    const of = (each: typeof policy) => [
      [each.silent, each.open, each.enforcesNames, each.addressRules],
      ["www.example.org", "evil.example.org", "example.net"].map((name) => [
        each.lookup(name),
        each.grantOf(name),
        each.connectByName(name, 22, "tcp"),
        each.connectByName(name, 22, "udp"),
      ]),
    ];
    expect(of(closed)).toEqual(of(policy));
  });
});
