import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { openLinks } from "../../support/open-links.js";
import { useOnline } from "../../support/online.js";
import { arp, frame, icmp, icmpv6, ipv4, protocols, tcp, udp } from "../../support/packets.js";
import { enter, getsOut, mark, pings, quietMs, type Member } from "../../support/raw-attacker.js";
import { sendFrames, sendFromInside, sendPackets, Tap } from "../../support/raw-client.js";
import { Reach } from "../../support/reach.js";

const apiPort = 8_081;
const token = "a-token-of-the-tests";
const socket = join(tmpdir(), `sqt-relay-${process.pid}.sock`);

// the API on every address of the host, as careless as it may be
const { squashd, internet, outside } = useOnline({
  env: { SQUASH_LISTEN: `0.0.0.0:${apiPort}`, SQUASH_AUTH_TOKEN: token },
  url: `unix:${socket}`,
  token,
  prepare: async ({ netns }) => {
    const reach = await Reach.from(netns);
    await reach.relay(socket, ["127.0.0.1", apiPort]);
    const dispose = async (): Promise<void> => {
      await reach[Symbol.asyncDispose]();
      rmSync(socket);
    };
    return { [Symbol.asyncDispose]: dispose };
  },
});

const { web, metadata, lan, host, hostPrivate } = places;
const gateway = "10.200.0.1";
const unused = "10.200.9.9";
const neighbourPort = 9_000;
const hostServer = 6_100;
/** hardware addresses that are nobody's, and a group's */
const foreignMac = "02:00:00:00:99:99";
const allNodesMac = "33:33:00:00:00:01";
/** fe80::bad, and all nodes of a link */
const attackerLinkLocal = "fe800000000000000000000000000bad";
const allNodes = "ff020000000000000000000000000001";

let attacker: Member;
let neighbour: Member;
let onHost: Reach;
let onInternet: Reach;

beforeAll(async () => {
  attacker = await enter(squashd, "attacker");
  neighbour = await enter(squashd, "neighbour");
  await neighbour.reach.listen(["0.0.0.0", neighbourPort]);
  onHost = await Reach.from(squashd.netns);
  onInternet = await Reach.from(outside);
  for (const address of [host, hostPrivate, gateway]) await onHost.listen([address, hostServer]);
  // whoever is on the internet may well know the way to the sandboxes' network
  outside.run("ip", "route", "add", "10.200.0.0/14", "via", host);
});
afterAll(async () => {
  for (const each of [attacker.reach, neighbour.reach, onHost, onInternet]) await each[Symbol.asyncDispose]();
});

/** Of the host's end of a link. */
function hardwareAddress(link: string): string {
  return /link\/ether (\S+)/.exec(squashd.netns.run("ip", "-o", "link", "show", link))?.[1] ?? "";
}

/** Whether a packet gets to the neighbour. */
async function getsNext(packet: (text: string) => Buffer): Promise<boolean> {
  const text = mark();
  await using tap = await Tap.open(neighbour.netns, "eth0");
  expect(sendPackets(attacker.netns, [packet(text)])).toBe("sent 1");
  return await tap.hears(text, quietMs);
}

const out = (from: string, protocol: number, payload: Buffer): Buffer => ipv4({ from, to: web, protocol, payload });

/** A packet of UDP to the internet whose source is another's. */
const spoofed = (from: () => string) => (): Promise<boolean> =>
  getsOut(attacker, outside, (text) => [out(from(), protocols.udp, udp(5_000, 7_000, text))]);

/** One of a protocol that squashd does not know, which no policy allows. */
const foreign = (protocol: number) => (): Promise<boolean> =>
  getsOut(attacker, outside, (text) => [out(attacker.address, protocol, Buffer.from(`\0\0\0\0\0\0\0\0${text}`))]);

/** Whether the API can be spoken to by an address. */
const api = (address: string) => (): Promise<boolean> => attacker.reach.opens([address, apiPort]);

/** An attack: true where it is a success. */
type Attack = readonly [name: string, run: () => Promise<boolean>];

const attacks: readonly Attack[] = [
  ["a packet with the neighbour's address", spoofed(() => neighbour.address)],
  ["a packet with an address of sandboxes that nobody has", spoofed(() => unused)],
  ["a packet with the gateway's address", spoofed(() => "10.200.3.1")],
  ["a packet with a public address", spoofed(() => "198.18.5.5")],
  [
    "a frame with another's hardware address and IP address",
    async () => {
      const text = mark();
      await using tap = await Tap.open(outside, "up0");
      const hostMac = hardwareAddress(attacker.link);
      const packet = out(neighbour.address, protocols.udp, udp(5_000, 7_000, text));
      sendFrames(attacker.netns, "eth0", [frame(hostMac, foreignMac, 0x0800, packet)]);
      return await tap.hears(text, quietMs);
    },
  ],
  [
    "an address of the neighbour's on eth0",
    async () => {
      const from = internet.arrivals.length;
      attacker.netns.run("ip", "address", "add", `${neighbour.address}/32`, "dev", "eth0");
      const via = ["default", "via", gateway, "dev", "eth0", "onlink"];
      attacker.netns.run("ip", "route", "replace", ...via, "src", neighbour.address);
      await attacker.reach.try([web, 7_000], { protocol: "udp", timeoutMs: quietMs });
      attacker.netns.run("ip", "address", "del", `${neighbour.address}/32`, "dev", "eth0");
      attacker.netns.run("ip", "route", "replace", ...via);
      return internet.seen("udp", from).length > 0;
    },
  ],
  ["the neighbour by TCP", () => attacker.reach.opens([neighbour.address, neighbourPort])],
  ["the neighbour by UDP", () => attacker.reach.opens([neighbour.address, neighbourPort], "udp")],
  ["the neighbour by ICMP", () => pings(attacker, neighbour.address)],
  [
    "the neighbour by an answer that it did not ask for",
    () =>
      getsNext((text) => {
        const payload = icmp(0, text);
        return ipv4({ from: attacker.address, to: neighbour.address, protocol: protocols.icmp, payload });
      }),
  ],
  ["the API at the gateway's address", api(gateway)],
  ["the API at the host's public address", api(host)],
  ["the API at the host's private address", api(hostPrivate)],
  ["another server at the gateway's address", () => attacker.reach.opens([gateway, hostServer])],
  ["another server at the gateway's address, by UDP", () => attacker.reach.opens([gateway, hostServer], "udp")],
  ["another server at the host's public address", () => attacker.reach.opens([host, hostServer])],
  ["another server at the host's private address", () => attacker.reach.opens([hostPrivate, hostServer], "udp")],
  ["the gateway by ICMP", () => pings(attacker, gateway)],
  ["the host by ICMP", () => pings(attacker, host)],
  ["the metadata service", () => attacker.reach.opens([metadata, 80])],
  ["the LAN by TCP", () => attacker.reach.opens([lan, 7_000])],
  ["the LAN by UDP", () => attacker.reach.opens([lan, 7_000], "udp")],
  ["the LAN by ICMP", () => pings(attacker, lan)],
  ["GRE", foreign(protocols.gre)],
  ["SCTP", foreign(protocols.sctp)],
  ["IPv6 in IPv4", foreign(protocols.ipv6)],
  ["IPv4 in IPv4", foreign(4)],
  ["a protocol of number 253", foreign(253)],
  [
    "a fragmented packet to the LAN",
    () =>
      getsOut(attacker, outside, (text) => {
        const whole = udp(5_000, 7_000, text.padEnd(40, "."));
        const common = { from: attacker.address, to: lan, protocol: protocols.udp, id: 3_000 };
        return [
          ipv4({ ...common, payload: whole.subarray(0, 8), more: true }),
          ipv4({ ...common, payload: whole.subarray(8), offset: 8 }),
        ];
      }),
  ],
  ["a connection from the internet", () => onInternet.opens([neighbour.address, neighbourPort])],
  ["a packet from the internet", () => onInternet.opens([neighbour.address, neighbourPort], "udp")],
  ["a connection from the host", () => onHost.opens([neighbour.address, neighbourPort])],
  [
    "a packet from the internet that pretends to be of a connection",
    async () => {
      await using tap = await Tap.open(neighbour.netns, "eth0");
      const ends = { from: lan, to: neighbour.address };
      const payload = tcp(ends, [7_000, neighbourPort], 0x10);
      sendPackets(outside, [ipv4({ ...ends, protocol: protocols.tcp, payload })]);
      return await tap.hears(payload.subarray(0, 8), quietMs);
    },
  ],
  [
    "an echo request by IPv6 to all nodes",
    async () => {
      const text = mark();
      await using tap = await Tap.open(attacker.netns, "eth0");
      const body = Buffer.concat([Buffer.from([0, 1, 0, 1]), Buffer.from(text)]);
      const packet = icmpv6(attackerLinkLocal, allNodes, 128, body);
      sendFrames(attacker.netns, "eth0", [frame(allNodesMac, foreignMac, 0x86dd, packet)]);
      return await tap.hears(body, quietMs);
    },
  ],
];

/** What keeps the host's end from speaking IPv6 is itself a protection; here the firewall's part of it is seen. */
function speakIpv6(on: boolean): void {
  squashd.netns.run("sysctl", "-qw", `net.ipv6.conf.${attacker.link}.disable_ipv6=${on ? 0 : 1}`);
}

describe.skipIf(lacks("root"))("with an open policy,", () => {
  it.each(attacks)("%s is refused", async (_, run) => {
    expect(await run()).toBe(false);
  });

  it("IPv6 is refused although the host's end of the link speaks it", async () => {
    speakIpv6(true);
    const found = attacks.find(([name]) => name.includes("IPv6 to all"));
    expect(await found?.[1]()).toBe(false);
    speakIpv6(false);
  });

  it("what is public is reached, by TCP, UDP, ICMP and in fragments", async () => {
    expect(await attacker.reach.opens([web, 7_000])).toBe(true);
    expect(await attacker.reach.opens([web, 7_000], "udp")).toBe(true);
    expect(await pings(attacker, web)).toBe(true);
    const id = 4_000;
    const [from, text] = [internet.arrivals.length, mark()];
    const whole = udp(5_000, 7_000, text.padEnd(40, "."));
    const common = { from: attacker.address, to: web, protocol: protocols.udp, id };
    sendPackets(attacker.netns, [
      ipv4({ ...common, payload: whole.subarray(16), offset: 16 }),
      ipv4({ ...common, payload: whole.subarray(0, 16), more: true }),
    ]);
    await expect.poll(() => internet.seen("udp", from).join(" ")).toContain(text);
  });

  it("the resolver and the proxy are not reached by the ports that they really have", async () => {
    const rules = squashd.netns.run("nft", "list", "chain", "inet", "squash", "to_squashd");
    const ports = [...rules.matchAll(/10\.200\.0\.1:(\d+)/g)].map((match) => Number(match[1]));
    expect(new Set(ports).size).toBeGreaterThanOrEqual(3);
    const tcpPorts = ports.slice(1);
    for (const port of ports) {
      expect(await attacker.reach.opens([gateway, port])).toBe(false);
      expect(await attacker.reach.opens([gateway, port], "udp")).toBe(false);
    }
    // whoever is no sandbox is hung up on there, at once
    for (const port of tcpPorts) expect(await onHost.try([gateway, port])).toMatch(/^open$|ECONNRESET/);
    // nor by anybody else who knows the way to the gateway's address
    for (const port of tcpPorts) expect(await onInternet.opens([gateway, port])).toBe(false);
  });

  it("packets to 127.0.0.1, to all and to groups get neither answers nor out", async () => {
    for (const to of ["127.0.0.1", "255.255.255.255", "10.203.255.255", "224.0.0.1", "239.1.2.3", "0.0.0.0"]) {
      const text = mark();
      await using tap = await Tap.open(attacker.netns, "eth0");
      await using far = await Tap.open(outside, "up0");
      await using near = await Tap.open(neighbour.netns, "eth0");
      const ends = { from: attacker.address, to };
      const hostMac = hardwareAddress(attacker.link);
      const packets = [
        ipv4({ ...ends, protocol: protocols.udp, payload: udp(5_000, hostServer, text) }),
        ipv4({ ...ends, protocol: protocols.icmp, payload: icmp(8, text) }),
        ipv4({ ...ends, protocol: protocols.tcp, payload: tcp(ends, [5_000, apiPort]) }),
      ];
      sendFrames(
        attacker.netns,
        "eth0",
        packets.map((packet) => frame(hostMac, foreignMac, 0x0800, packet)),
      );
      for (const place of [far, near]) expect(await place.hears(text, 50)).toBe(false);
      // the refusal quotes the packet; an answer would be an echo, or SYN and ACK
      expect(await tap.hears(icmp(0, text), 50)).toBe(false);
      const answers = tap.frames.filter((each) => each[23] === protocols.tcp && each[47] === 0x12);
      expect(answers).toEqual([]);
    }
  });

  it("the API stays closed also where an entry is the host's very address", async () => {
    await attacker.sandbox.setNetwork({ allow_net: [host, `${hostPrivate}:${apiPort}`] });
    expect(await attacker.reach.opens([host, hostServer])).toBe(true);
    for (const address of [host, hostPrivate]) expect(await api(address)()).toBe(false);
    await attacker.sandbox.setNetwork({ allow_net: null });
  });

  it("hardware addresses of others are claimed in vain", async () => {
    const claimant = await enter(squashd, "claimant");
    // without the state, which the kernel changes by itself after a while
    const look = (): string[] =>
      [squashd.netns, neighbour.netns].flatMap((netns) =>
        netns
          .run("ip", "neighbour", "show")
          .trim()
          .split("\n")
          .map((line) => line.replace(/ [A-Z]+ *$/, "")),
      );
    const before = look();
    const broadcast = "ff:ff:ff:ff:ff:ff";
    const claims = [gateway, neighbour.address, unused, claimant.address].map((address) =>
      frame(broadcast, foreignMac, 0x0806, arp({ address, at: foreignMac, toldTo: gateway })),
    );
    expect(sendFrames(claimant.netns, "eth0", claims)).toBe("sent 4");
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(look()).toEqual(before);
    // an interface that speaks ARP and believes what it is told
    squashd.netns.run("ip", "link", "set", claimant.link, "arp", "on");
    squashd.netns.run("sysctl", "-qw", `net.ipv4.conf.${claimant.link}.arp_accept=1`);
    expect(sendFrames(claimant.netns, "eth0", claims)).toBe("sent 4");
    await expect.poll(() => look().join("\n")).toContain(foreignMac);
    await claimant.reach[Symbol.asyncDispose]();
    await claimant.sandbox.destroy();
  });

  it("a router that advertises itself is not believed, and eth0 gets no IPv6 by its owner", async () => {
    const prefix = Buffer.from("0304" + "40c0" + "ffffffff".repeat(2) + "00000000" + "fd00".padEnd(32, "0"), "hex");
    const body = Buffer.concat([Buffer.from("40000708" + "00000000".repeat(2), "hex"), prefix]);
    const packets = [
      icmpv6(attackerLinkLocal, allNodes, 134, body),
      icmpv6(attackerLinkLocal, "ff020000000000000000000000000002", 133, Buffer.alloc(4)),
    ];
    const look = (): string =>
      squashd.netns.run("ip", "-6", "address", "show", attacker.link) + squashd.netns.run("ip", "-6", "route");
    const before = look();
    sendFrames(
      attacker.netns,
      "eth0",
      packets.map((packet) => frame(allNodesMac, foreignMac, 0x86dd, packet)),
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(look()).toBe(before);
    expect(() => attacker.netns.run("ip", "address", "add", "fd00::2/64", "dev", "eth0")).toThrow(
      /disabled|denied|not supported/,
    );
    expect((await attacker.sandbox.exec("ip -6 addr add fd00::2/64 dev eth0")).exit_code).not.toBe(0);
  });

  it("a sandbox itself is not even allowed to try", async () => {
    const packet = out(neighbour.address, protocols.udp, udp(5_000, 7_000, "x"));
    const inFrame = frame(foreignMac, foreignMac, 0x0800, packet);
    expect(await sendFromInside(attacker.sandbox, "ip", packet)).toBe("refused: EPERM");
    expect(await sendFromInside(attacker.sandbox, "frame", inFrame)).toMatch(/^refused: E(PERM|AFNOSUPPORT)$/);
    for (const command of [
      `ip addr add ${neighbour.address}/32 dev eth0`,
      "ip link set eth0 address 02:00:00:00:99:99",
      "ip link set eth0 arp on",
      `ip route add ${lan}/32 dev eth0`,
      "ip link add dummy0 type dummy",
      "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6",
      "echo 1 > /proc/sys/net/ipv4/conf/eth0/forwarding",
    ])
      expect({ command, status: (await attacker.sandbox.exec(command)).exit_code }).not.toMatchObject({ status: 0 });
    expect(await attacker.reach.opens([web, 7_000])).toBe(true);
  });
});

/** The last of the file: it takes the protection away, which shows that the attacks are none that fail by themselves. */
describe.skipIf(lacks("root"))("without the firewall's table", () => {
  beforeAll(() => {
    openLinks(squashd.netns);
    for (const link of [attacker.link, neighbour.link, "all", "down0"])
      squashd.netns.run("sysctl", "-qw", `net.ipv4.conf.${link}.rp_filter=0`);
    outside.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.up0.rp_filter=0");
    speakIpv6(true);
  });
  afterAll(() => {
    speakIpv6(false);
    outside.run("ip", "route", "del", "10.200.0.0/14");
  });

  it.each(attacks)("%s is a success", async (_, run) => {
    expect(await run()).toBe(true);
  });
});
