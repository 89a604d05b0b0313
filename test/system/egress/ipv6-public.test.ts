import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { useOnline } from "../../support/online.js";
import { frame, protocols } from "../../support/packets.js";
import * as six from "../../support/packets6.js";
import { mark, quietMs } from "../../support/raw-attacker.js";
import { connect6, enter6, foreignMac, places6, send6, type Member6 } from "../../support/raw-attacker6.js";
import { sendFrames, Tap } from "../../support/raw-client.js";
import { Reach, type Place } from "../../support/reach.js";

const prefix = "2a0a:20::/64";
const web = "2606:2800:220:1::1";
const direct: Place = [places.web, 7_000];
const direct6: Place = [web, 7_000];
/** routers of the internet, as they advertise themselves */
const [router, otherRouter] = ["fe80::1", "fe80::2"];

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

// a host that learns its way to the internet, which is no router, and knows of none but those that advertise themselves
const { squashd, outside } = useOnline({
  env: { SQUASH_SUBNET6: prefix },
  prepare: async ({ netns }) => {
    connect6(netns, outside, [web]);
    for (const each of ["accept_ra=1", "accept_ra_defrtr=1", "forwarding=0", "router_solicitations=0"])
      netns.run("sysctl", "-qw", `net.ipv6.conf.down0.${each}`);
    for (const each of [router, otherRouter]) outside.run("ip", "address", "add", `${each}/64`, "dev", "up0", "nodad");
    outside.run("ip", "-6", "route", "add", prefix, "via", places6.host);
    advertise(router);
    await vi.waitFor(() => expect(learnedRouters()).toEqual([router]), { timeout: 5_000 });
    return { [Symbol.asyncDispose]: () => Promise.resolve() };
  },
});

/** A router of the internet tells all of the link that it is one, for half an hour. */
function advertise(from: string): void {
  const mac = /link\/ether (\S+)/.exec(outside.run("ip", "-o", "link", "show", "up0"))?.[1] ?? "";
  const body = Buffer.concat([Buffer.from(`40000708${"00000000".repeat(2)}`, "hex"), six.hardwareOption(1, mac)]);
  const packet = six.icmp6({ from, to: "ff02::1" }, 134, body);
  sendFrames(outside, "up0", [frame("33:33:00:00:00:01", foreignMac, 0x86dd, packet)]);
}

/** Default routers that the host has learned of. */
function learnedRouters(): string[] {
  const text = squashd.netns.run("ip", "-6", "route", "show", "default", "dev", "down0", "proto", "ra");
  return [...text.matchAll(/via (\S+)/g)].map((match) => match[1] ?? "").toSorted();
}

describe.skipIf(lacks("root", "nft"))("a public prefix of IPv6", () => {
  let member: Member6;
  let onInternet: Reach;

  beforeAll(async () => {
    member = await enter6(squashd, "public");
    onInternet = await Reach.from(outside);
    await onInternet.listen(direct6);
  });
  afterAll(async () => {
    await member.reach[Symbol.asyncDispose]();
    await onInternet[Symbol.asyncDispose]();
  });

  it("is what servers see, without any translation, and answers come to it", async () => {
    expect(await member.reach.opens(direct6)).toBe(true);
    const text = mark();
    await using tap = await Tap.open(outside, "up0");
    await using inside = await Tap.open(member.netns, "eth0");
    const ends = { from: member.address6, to: web };
    send6(member, [six.packet6(ends, protocols.udp, six.udp6(ends, [5_000, 7_000], text))]);
    expect(await tap.hears(text, 3_000)).toBe(true);
    const seen = tap.frames.find((each) => each.includes(text));
    expect(seen?.subarray(22, 38).toString("hex")).toBe(six.hex6(member.address6));
    expect(await inside.hears(text, 3_000)).toBe(true);
  });

  it("opens no way in for others", async () => {
    await member.reach.listen([member.address6, 9_000]);
    await using host = await Reach.from(squashd.netns);
    for (const from of [onInternet, host]) {
      expect(await from.opens([member.address6, 9_000])).toBe(false);
      expect(await from.opens([member.address6, 9_000], "udp")).toBe(false);
    }
  });

  it("shares its limit of new connections with IPv4", async () => {
    /** Connections that come about in a second and a half. */
    const made = async (): Promise<[number, number]> => {
      const storm = await member.reach.storm([direct, direct6], { atOnce: 8, timeoutMs: 300 });
      await pause(1_500);
      const { opened } = await member.reach.calm(storm);
      return [opened[direct.join(":")]?.times ?? 0, opened[direct6.join(":")]?.times ?? 0];
    };
    await member.sandbox.setNetwork({ allow_net: null, net_limits: { connections_per_s: 10 } });
    const [four, six_] = await made();
    // those of the first moment, then ten a second, of both together
    expect(Math.min(four, six_)).toBeGreaterThan(0);
    expect(four + six_).toBeGreaterThanOrEqual(10);
    expect(four + six_).toBeLessThanOrEqual(10 + 10 * 2.5);
    await member.sandbox.setNetwork({ allow_net: null });
    const [free, free6] = await made();
    expect(Math.min(free, free6)).toBeGreaterThan(30);
  });

  it.each(["down_kbit", "up_kbit"] as const)("shares its bandwidth, as %s says, with IPv4", async (field) => {
    const bytesPerS = 1_000_000;
    await member.sandbox.setNetwork({ allow_net: null, net_limits: { [field]: (bytesPerS * 8) / 1_000 } });
    const [four, six_] = await Promise.all([member.reach.pump(direct, 1_200), member.reach.pump(direct6, 1_200)]);
    expect(Math.min(four, six_)).toBeGreaterThan(0);
    expect(four + six_).toBeGreaterThan(bytesPerS / 3);
    expect(four + six_).toBeLessThan(bytesPerS * 1.3);
    await member.sandbox.setNetwork({ allow_net: null });
    expect(await member.reach.pump(direct6, 300)).toBeGreaterThan(3 * bytesPerS);
  });
});

/** The last of the file: squashd ends, and is there again for whatever comes after the tests. */
describe.skipIf(lacks("root", "nft"))("a host's default router that it has learned", () => {
  it("stays over squashd's start, and others are learned while it runs", async () => {
    expect(learnedRouters()).toEqual([router]);
    advertise(otherRouter);
    await expect.poll(learnedRouters).toEqual([router, otherRouter]);
  });

  it("stays over its end as well, and its next start", async () => {
    await squashd.destroyAll();
    await squashd.end();
    expect(squashd.netns.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").trim()).toBe("0");
    expect(learnedRouters()).toEqual([router, otherRouter]);
    await squashd.start();
    expect(squashd.netns.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").trim()).toBe("1");
    expect(learnedRouters()).toEqual([router, otherRouter]);
  });

  it("would be lost, and no other learned, if forwarding were just switched on", async () => {
    await squashd.destroyAll();
    squashd.netns.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0");
    // the kernel looks for such routes only where one was added since it looked last
    squashd.netns.run("ip", "-6", "route", "flush", "dev", "down0", "proto", "ra");
    advertise(router);
    await expect.poll(learnedRouters).toContain(router);
    squashd.netns.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1");
    expect(learnedRouters()).toEqual([]);
    advertise(router);
    await pause(quietMs);
    expect(learnedRouters()).toEqual([]);
  });
});
