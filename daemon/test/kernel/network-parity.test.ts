import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { formatAddress, networkAt, parseAddress } from "../../src/core/egress/address.js";
import { addressText } from "../../src/core/egress/firewall.js";
import type { EgressPolicy } from "../../src/core/egress/egress-policy.js";
import { SandboxNetworks } from "../../src/core/egress/networks.js";
import { parsePolicy } from "../../src/core/egress/policy.js";
import { networkSettings, type NetworkWish } from "../../src/core/egress/settings.js";
import { FakePlane, Steps } from "../../src/core/egress/testing/fake-firewall.js";
import { lacks } from "../../../test/support/needs.js";
import {
  eventually,
  hostAddress,
  hostAddress6,
  subnet,
  subnet6,
  useNetwork,
  worldPorts,
  worldTcpPort,
  type PacketAgent,
} from "./test-network.js";

const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);

/** Addresses that the kernel routes, among them some of every special range that it does route. */
const destinations = [
  ...["93.184.216.34", "93.184.216.35", "93.184.200.1", "8.8.8.8", "1.2.3.4", "223.255.255.254", "128.0.0.1"],
  ...["10.1.2.3", "10.1.255.255", "10.2.0.1", "100.64.0.1", "169.254.169.254", "172.16.5.5", "172.32.0.1"],
  ...["192.0.0.9", "192.0.2.1", "192.88.99.1", "192.168.77.7", "198.18.0.1", "198.51.100.1", "203.0.113.77"],
  ...["240.0.0.1", "250.1.2.3", "9.255.255.255", "11.0.0.0", "192.167.255.255", "192.169.0.0", "198.20.0.1"],
  ...["10.200.0.77", "10.203.255.254", "10.204.0.1"],
];
/** The same of IPv6, with some that have an IPv4 address in them. */
const destinations6 = [
  ...[
    "2606:2800:220:1::1",
    "2606:2800:220:1::2",
    "2606:2800:221::1",
    "2606:2801::1",
    "2001:4860:4860::8888",
    "2a00::1",
  ],
  ...["3fff:ffff::1", "2001:200::1", "2001:1ff:ffff::1", "2001::1", "2001:db8::1", "2002:a01:203::1", "3ffe::1"],
  ...["64:ff9b::a01:203", "64:ff9b:1::1", "100::1", "4000::1", "5f00::1", "8000::1", "fc00::1", "fd00:10:201::1"],
  ...["fec0::1", "1::1", "fd00:10:200::77", "fd00:10:200::ffff:1", "::a01:203"],
];

/** Numbers from 0 to below 1, the same for the same seed. Source: mulberry32, in the public domain */
function randomOf(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

class Random {
  readonly #next = randomOf(seed);

  below(limit: number): number {
    return Math.floor(this.#next() * limit);
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  entry(): string {
    const is6 = this.below(2) === 0;
    const prefixes4 = [0, 1, 7, 8, 9, 10, 12, 15, 16, 17, 20, 23, 24, 25, 30, 31, 32, this.below(33)];
    const prefixes6 = [0, 1, 3, 7, 8, 16, 20, 23, 32, 47, 48, 49, 64, 65, 96, 127, 128, 128, this.below(129)];
    const prefix = this.of(is6 ? prefixes6 : prefixes4);
    const network = networkAt(parseAddress(this.of(is6 ? destinations6 : destinations))!, prefix);
    const port = this.of(["", "", `:${this.of(worldPorts)}/udp`, `:${this.of(worldPorts)}`]);
    const text = formatAddress(network);
    return is6 && port !== "" ? `[${text}]/${prefix}${port}` : `${text}/${prefix}${port}`;
  }

  wish(): NetworkWish {
    const names = ["", "", "www.example.org", "*.example.org:22/udp"];
    const list = (length: number): string[] =>
      [this.of(names), ...Array.from({ length }, () => this.entry())].filter((each) => each !== "" && isValid(each));
    return this.below(20) === 0
      ? { allow_net: ["none"] }
      : { allow_net: this.below(3) === 0 ? null : list(this.below(6)), deny_net: list(this.below(5)) };
  }
}

function parse(wish: NetworkWish): EgressPolicy {
  return parsePolicy(networkSettings(wish).policy, { subnets: [subnet.cidr, subnet6.cidr] });
}

/** Some entries cannot be opened at all, such as multicast. */
function isValid(entry: string): boolean {
  try {
    return parse({ allow_net: [entry] }).open || true;
  } catch {
    return false; // the policy's own tests say which
  }
}

describe.skipIf(lacks("root", "nft"))("the firewall decides as the policy does", () => {
  const bed = useNetwork({ ipv6: true });
  let networks: SandboxNetworks;
  let agent: PacketAgent;
  let round = 0;

  /** Sends a packet to each, all under one policy; returns which arrive. */
  async function arrivals(
    wish: NetworkWish,
    targets: readonly { address: string; port: number }[],
  ): Promise<boolean[]> {
    await networks.change(0, networkSettings(wish));
    const [from, number] = [bed.world.news.length, ++round];
    const refused = async (): Promise<number> => (await bed.firewall.traffic(0)).refusedPackets;
    const before = await refused();
    const packets = targets.map((target, at) => ({ ...target, text: `${number}.${at}` }));
    await agent.order({ op: "send", packets }, "sent");
    const arrived = (): string[] => bed.world.news.slice(from).filter((news) => news.startsWith(`arrived ${number}.`));
    const isDecided = async (): Promise<boolean> => arrived().length + (await refused()) - before >= targets.length;
    await eventually(isDecided, `a decision on all of ${JSON.stringify({ wish, targets })}`);
    expect(arrived().length + (await refused()) - before).toBe(targets.length);
    return targets.map((_, at) => arrived().includes(`arrived ${number}.${at}`));
  }

  beforeAll(async () => {
    agent = await bed.cell(0);
    networks = new SandboxNetworks({
      firewall: bed.firewall,
      plane: new FakePlane(new Steps()),
      audit: () => undefined,
      secretEvents: { used: () => undefined, rotated: () => undefined },
    });
    await networks.attach(0, "box", networkSettings({}));
  });

  afterAll(async () => {
    await networks.detach(0);
    await bed.end(0);
  });

  it.each<[NetworkWish, string, boolean]>([
    [{}, "93.184.216.34", true],
    [{}, "10.1.2.3", false],
    [{ allow_net: ["0.0.0.0/0"] }, "93.184.216.34", true],
    [{ allow_net: ["0.0.0.0/0"] }, "10.1.2.3", false],
    [{ allow_net: ["10.0.0.0/7"] }, "10.1.2.3", false],
    [{ allow_net: ["10.0.0.0/8"] }, "10.1.2.3", true],
    [{ allow_net: ["10.1.0.0/16"] }, "10.1.2.3", true],
    [{ allow_net: ["10.1.0.0/16"], deny_net: ["10.0.0.0/8"] }, "10.1.2.3", true],
    [{ allow_net: ["10.0.0.0/8"], deny_net: ["10.1.2.3"] }, "10.1.2.3", false],
    [{ allow_net: ["10.0.0.0/8"] }, "10.200.0.77", false],
    [{ allow_net: ["169.254.0.0/16"] }, "169.254.169.254", true],
    [{ allow_net: ["93.184.216.34:7/udp"] }, "93.184.216.34", true],
    [{ allow_net: ["93.184.216.34:7"] }, "93.184.216.34", false],
    [{ allow_net: ["93.184.216.34"], deny_net: ["93.184.216.34:7/udp"] }, "93.184.216.34", false],
    [{ allow_net: ["none"] }, "93.184.216.34", false],
    [{ allow_net: ["www.example.org"] }, "93.184.216.34", false],
    [{ deny_net: ["www.example.org"] }, "93.184.216.34", true],
    [{ deny_net: ["www.example.org"] }, "10.1.2.3", false],
    [{}, "2606:2800:220:1::1", true],
    [{}, "fd00:10:201::1", false],
    [{}, "64:ff9b::a01:203", false],
    [{}, "2002:a01:203::1", false],
    [{}, "2001::1", false],
    [{}, "::a01:203", false],
    [{ allow_net: ["::/0"] }, "fd00:10:201::1", false],
    [{ allow_net: ["fd00:10:201::/64"] }, "fd00:10:201::1", true],
    [{ allow_net: ["fd00::/8"] }, "fd00:10:200::77", false],
    [{ allow_net: ["2606:2800::/32"], deny_net: ["2606:2800:220:1::1"] }, "2606:2800:220:1::1", false],
    [{ allow_net: ["2606:2800:220:1::1"], deny_net: ["2606:2800::/32"] }, "2606:2800:220:1::1", true],
    [{ allow_net: ["[2606:2800:220:1::1]:7/udp"] }, "2606:2800:220:1::1", true],
    [{ allow_net: ["[2606:2800:220:1::1]:7"] }, "2606:2800:220:1::1", false],
    [{ allow_net: ["93.184.216.34"] }, "2606:2800:220:1::1", false],
    [{ allow_net: ["none"] }, "2606:2800:220:1::1", false],
    [{ deny_net: ["www.example.org"] }, "2606:2800:220:1::1", true],
    [{ deny_net: ["www.example.org"] }, "2002:a01:203::1", false],
  ])("under %j, to %s: %s", async (wish, address, allowed) => {
    expect(parse(wish).connectByAddress(address, 7, "udp").allowed).toBe(allowed);
    expect(await arrivals(wish, [{ address, port: 7 }])).toEqual([allowed]);
  });

  it(`under 60 policies, to 20 places each (TEST_SEED=${seed})`, async () => {
    const random = new Random();
    let both = [0, 0];
    for (let at = 0; at < 60; at++) {
      const wish = random.wish();
      const policy = parse(wish);
      const targets = Array.from({ length: 20 }, () => ({
        address: random.of(random.below(2) === 0 ? destinations : destinations6),
        port: random.of(worldPorts),
      })).filter((target, index, all) => all.findIndex((one) => sameTarget(one, target)) === index);
      const found = await arrivals(wish, targets);
      const show = (allowed: boolean, index: number): string =>
        `${targets[index]?.address}:${targets[index]?.port} ${allowed ? "arrives" : "is refused"} under ${JSON.stringify(wish)}`;
      const expected = targets.map(({ address, port }) => policy.connectByAddress(address, port, "udp").allowed);
      expect(found.map(show)).toEqual(expected.map(show));
      both = [both[0]! + found.filter(Boolean).length, both[1]! + found.filter((each) => !each).length];
    }
    // it would prove little if nearly all were decided alike
    expect(Math.min(...both)).toBeGreaterThan(100);
  });

  it("the host's own addresses apart, which only an entry that is the very address opens", async () => {
    const reaches = async (wish: NetworkWish, host = hostAddress): Promise<boolean> => {
      const before = (await bed.firewall.traffic(0)).refusedPackets;
      await networks.change(0, networkSettings(wish));
      const sent = (await bed.firewall.traffic(0)).sentPackets;
      const packets = [{ address: host, port: 7, text: "to the host" }];
      await agent.order({ op: "send", packets }, "sent");
      await eventually(async () => (await bed.firewall.traffic(0)).sentPackets > sent, "a packet");
      return (await bed.firewall.traffic(0)).refusedPackets === before;
    };
    expect(await reaches({})).toBe(false);
    expect(await reaches({ allow_net: ["45.10.0.0/30"] })).toBe(false);
    expect(await reaches({ allow_net: [hostAddress] })).toBe(true);
    expect(await reaches({ allow_net: [`${hostAddress}:7/udp`] })).toBe(true);
    expect(await reaches({ allow_net: [`${hostAddress}:8/udp`] })).toBe(false);
    expect(await reaches({}, hostAddress6)).toBe(false);
    expect(await reaches({ allow_net: ["2a0a:10::/64"] }, hostAddress6)).toBe(false);
    expect(await reaches({ allow_net: [hostAddress6] }, hostAddress6)).toBe(true);
    expect(await reaches({ allow_net: [`[${hostAddress6}]:8/udp`] }, hostAddress6)).toBe(false);
    // the gateway has nothing open of IPv6
    expect(await reaches({ allow_net: ["::/0"] }, subnet6.gateway)).toBe(false);
  });

  it("connections of IPv6 end when they are not allowed any more, and are listed until then", async () => {
    const web = "2606:2800:220:1::1";
    await networks.change(0, networkSettings({}));
    await agent.order({ op: "connect", address: web, port: worldTcpPort }, "connected");
    await agent.order({ op: "write", text: "before" }, "data before");
    const open = async () => (await bed.firewall.flows(0)).map(({ destination }) => addressText(destination));
    expect(await open()).toContain(web);
    await networks.change(0, networkSettings({ deny_net: ["2606:2800:220:1::2"] }));
    await agent.order({ op: "write", text: "still" }, "data still");
    await networks.change(0, networkSettings({ deny_net: [web] }));
    expect(await open()).not.toContain(web);
    await agent.order({ op: "write", text: "after" }, "error ECONNRESET");
    expect(agent.news).not.toContain("data after");
  });

  it.each([53, 853])(
    "other resolvers apart, at port %i: where names count, only that very port opens it",
    async (port) => {
      const isRefused = async (wish: NetworkWish): Promise<boolean> => {
        await networks.change(0, networkSettings(wish));
        const before = await bed.firewall.traffic(0);
        await agent.order({ op: "send", packets: [{ address: "8.8.8.8", port, text: "question" }] }, "sent");
        await eventually(async () => (await bed.firewall.traffic(0)).sentPackets > before.sentPackets, "a packet");
        return (await bed.firewall.traffic(0)).refusedPackets > before.refusedPackets;
      };
      expect(await isRefused({})).toBe(false);
      expect(await isRefused({ allow_net: ["8.8.8.8"] })).toBe(true);
      expect(await isRefused({ allow_net: [`8.8.8.8:${port}/udp`] })).toBe(false);
      expect(await isRefused({ deny_net: ["example.org"] })).toBe(true);
    },
  );
});

function sameTarget(a: { address: string; port: number }, b: { address: string; port: number }): boolean {
  return a.address === b.address && a.port === b.port;
}
