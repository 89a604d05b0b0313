import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { lacks } from "../../support/needs.js";
import { openLinks } from "../../support/open-links.js";
import { useOnline } from "../../support/online.js";
import { frame, protocols } from "../../support/packets.js";
import * as six from "../../support/packets6.js";
import { mark } from "../../support/raw-attacker.js";
import * as raw from "../../support/raw-attacker6.js";
import { arrives6, pings6, places6, send6, soon, type Member6 } from "../../support/raw-attacker6.js";
import { sendFrames, Tap } from "../../support/raw-client.js";
import { Reach } from "../../support/reach.js";

const apiPort = 8_081;
const token = "a-token-of-the-tests";
const socket = join(tmpdir(), `sqt-relay6-${process.pid}.sock`);

const web = "2606:2800:220:1::1";
const lan = "fd77::7";
const { host } = places6;
const gateway = "fd00:10:200::1";
const unused = "fd00:10:200::3fff";
/** to which the host has a route of its own, over an interface of the sandbox */
const detour = "2001:4860:77::7";
const allNodes = "ff02::1";
/** link-local addresses that a sandbox may claim */
const [claimed, otherClaimed, known] = ["fe80::bad", "fe80::bad2", "fe80::cafe"];
const neighbourPort = 9_000;
const hostServer = 6_100;
/** at every address of the host */
const openServer = 6_101;
const settings = "net.ipv6.conf";

let attacker: Member6;
let neighbour: Member6;
/** its interface is one that believes what it is told, later on */
let careless: Member6;
let onHost: Reach;
let onInternet: Reach;

// the API on every address of the host, as careless as it may be
const { squashd, outside } = useOnline({
  env: { SQUASH_LISTEN: `[::]:${apiPort}`, SQUASH_AUTH_TOKEN: token, SQUASH_SUBNET6: "fd00:10:200::/64" },
  url: `unix:${socket}`,
  token,
  prepare: async ({ netns }) => {
    raw.connect6(netns, outside, [web, lan]);
    netns.run("ip", "-6", "route", "add", "default", "via", places6.router);
    const reach = await Reach.from(netns);
    await reach.relay(socket, ["::1", apiPort]);
    const dispose = async (): Promise<void> => {
      await reach[Symbol.asyncDispose]();
      rmSync(socket);
    };
    return { [Symbol.asyncDispose]: dispose };
  },
});

beforeAll(async () => {
  attacker = await raw.enter6(squashd, "attacker");
  neighbour = await raw.enter6(squashd, "neighbour");
  careless = await raw.enter6(squashd, "careless");
  onHost = await Reach.from(squashd.netns);
  onInternet = await Reach.from(outside);
  await neighbour.reach.listen([neighbour.address6, neighbourPort]);
  for (const address of [host, gateway]) await onHost.listen([address, hostServer]);
  await onHost.listen(["::", openServer]);
  for (const address of [web, lan]) await onInternet.listen([address, 7_000]);
  // whoever is on the internet may well know the way to the sandboxes' network
  outside.run("ip", "-6", "route", "add", "fd00:10:200::/64", "via", host);
});
afterAll(async () => {
  for (const { reach } of [attacker, neighbour, careless]) await reach[Symbol.asyncDispose]();
  for (const each of [onHost, onInternet]) await each[Symbol.asyncDispose]();
});

/** Whether packets of the attacker's get out of the machine. */
const getsOut = (make: (text: string) => readonly Buffer[]): Promise<boolean> =>
  arrives6(attacker, [outside, "up0"], make);

/** A datagram to the internet whose source is another's. */
const spoofed = (from: () => string) => (): Promise<boolean> =>
  getsOut((text) => {
    const ends = { from: from(), to: web };
    return [six.packet6(ends, protocols.udp, six.udp6(ends, [5_000, 7_000], text))];
  });

/** One of a protocol that squashd does not know, which no policy allows. */
const foreign = (protocol: number) => (): Promise<boolean> =>
  getsOut((text) => [
    six.packet6({ from: attacker.address6, to: web }, protocol, Buffer.from(`\0\0\0\0\0\0\0\0${text}`)),
  ]);

/** A datagram to the LAN, where the policy allows none, behind a header; `parts` makes of both what is sent. */
const toLan =
  (parts: (datagram: Buffer) => readonly (readonly [next: number, payload: Buffer])[]) => (): Promise<boolean> =>
    getsOut((text) => {
      const ends = { from: attacker.address6, to: lan };
      const datagram = six.udp6(ends, [5_000, 7_000], text.padEnd(40, "."));
      return parts(datagram).map(([next, payload]) => six.packet6(ends, next, payload));
    });

const behind = (next: number, header: Buffer) => (datagram: Buffer) =>
  [[next, Buffer.concat([header, datagram])]] as const;

let nextId = 7_000;
/** Two fragments of a payload whose first header is `next`, cut at `at`. */
function cut(next: number, payload: Buffer, at: number): (readonly [number, Buffer])[] {
  const id = nextId++;
  return [
    [six.extensions.fragment, Buffer.concat([six.fragment(next, id, { more: true }), payload.subarray(0, at)])],
    [six.extensions.fragment, Buffer.concat([six.fragment(next, id, { offset: at }), payload.subarray(at)])],
  ];
}

const { hopByHop, routing, destination } = six.extensions;
const optionsFirst = (datagram: Buffer): Buffer => Buffer.concat([six.emptyOptions(protocols.udp), datagram]);

/** Whether the API can be spoken to by an address. */
const api = (address: string) => (): Promise<boolean> => attacker.reach.opens([address, apiPort]);

/** An attack: true where it is a success. */
type Attack = readonly [name: string, run: () => Promise<boolean>];

const attacks: readonly Attack[] = [
  ["a packet with the neighbour's address", spoofed(() => neighbour.address6)],
  ["a packet with an address of sandboxes that nobody has", spoofed(() => unused)],
  ["a packet with the gateway's address", spoofed(() => gateway)],
  ["a packet with a public address", spoofed(() => "2606:2800:5::5")],
  ["the neighbour by TCP", () => attacker.reach.opens([neighbour.address6, neighbourPort])],
  ["the neighbour by UDP", () => attacker.reach.opens([neighbour.address6, neighbourPort], "udp")],
  ["the neighbour by ICMP", () => pings6(attacker, neighbour.address6)],
  [
    "the neighbour by an answer that it did not ask for",
    () =>
      arrives6(attacker, [neighbour.netns, "eth0"], (text) => [
        six.icmp6({ from: attacker.address6, to: neighbour.address6 }, 129, six.echoBody(text)),
      ]),
  ],
  ["the API at the gateway's address", api(gateway)],
  ["the API at the host's address", api(host)],
  ["another server at the gateway's address", () => attacker.reach.opens([gateway, hostServer])],
  ["another server at the gateway's address, by UDP", () => attacker.reach.opens([gateway, hostServer], "udp")],
  ["another server at the host's address", () => attacker.reach.opens([host, hostServer])],
  ["another server at the host's address, by UDP", () => attacker.reach.opens([host, hostServer], "udp")],
  ["the gateway by ICMP", () => pings6(attacker, gateway)],
  ["the host by ICMP", () => pings6(attacker, host)],
  ["the LAN by TCP", () => attacker.reach.opens([lan, 7_000])],
  ["the LAN by UDP", () => attacker.reach.opens([lan, 7_000], "udp")],
  ["the LAN by ICMP", () => pings6(attacker, lan)],
  ["the LAN behind hop-by-hop options", toLan(behind(hopByHop, six.emptyOptions(protocols.udp)))],
  ["the LAN behind destination options", toLan(behind(destination, six.emptyOptions(protocols.udp)))],
  ["the LAN behind a routing header", toLan(behind(routing, six.spentRoute(protocols.udp)))],
  ["the LAN by a fragment that is all of a packet", toLan(behind(44, six.fragment(protocols.udp, 6_999)))],
  ["the LAN by fragments", toLan((datagram) => cut(protocols.udp, datagram, 8))],
  ["the LAN by fragments in another order", toLan((datagram) => cut(protocols.udp, datagram, 8).toReversed())],
  [
    "the LAN by fragments, with the ports in the second one",
    toLan((datagram) => cut(destination, optionsFirst(datagram), 8)),
  ],
  ["GRE", foreign(protocols.gre)],
  ["SCTP", foreign(protocols.sctp)],
  ["IPv4 in IPv6", foreign(4)],
  ["IPv6 in IPv6", foreign(protocols.ipv6)],
  ["a protocol of number 253", foreign(253)],
  ["a connection from the internet", () => onInternet.opens([neighbour.address6, neighbourPort])],
  ["a packet from the internet", () => onInternet.opens([neighbour.address6, neighbourPort], "udp")],
  ["a connection from the host", () => onHost.opens([neighbour.address6, neighbourPort])],
  [
    "a packet from the internet that pretends to be of a connection",
    async () => {
      await using tap = await Tap.open(neighbour.netns, "eth0");
      const ends = { from: lan, to: neighbour.address6 };
      const payload = six.tcp6(ends, [7_000, neighbourPort], 0x10);
      const mac = /link\/ether (\S+)/.exec(squashd.netns.run("ip", "-o", "link", "show", "down0"))?.[1] ?? "";
      sendFrames(outside, "up0", [frame(mac, raw.foreignMac, 0x86dd, six.packet6(ends, protocols.tcp, payload))]);
      return await soon(() => tap.frames.some((each) => each.includes(payload.subarray(0, 8))));
    },
  ],
  ["an echo request to all nodes", () => pings6(attacker, allNodes, true)],
  [
    "a server of the host by a datagram to all nodes",
    async () => {
      const text = mark();
      await using tap = await Tap.open(attacker.netns, "eth0");
      const ends = { from: attacker.address6, to: allNodes };
      send6(attacker, [six.packet6(ends, protocols.udp, six.udp6(ends, [5_000, openServer], text))], true);
      // what a refusal quotes begins with other ports than an answer
      const ports = Buffer.from([openServer >> 8, openServer & 255, 5_000 >> 8, 5_000 & 255]);
      return await soon(() => tap.frames.some((each) => each.includes(ports) && each.includes(text)));
    },
  ],
];

/** Runs `ip -6` on the host. */
const onHostIp = (...args: readonly string[]): string => squashd.netns.run("ip", "-6", ...args);

/** Attacks on what an interface believes, by whoever is at its other end. */
type NeighbourAttack = readonly [name: string, run: (member: Member6) => Promise<boolean>];

/** Whether the host has something before long that a text of `ip` shows. */
const shows = (look: () => string, text: string): Promise<boolean> => soon(() => look().includes(text));

const advertised = Buffer.from(`40000708${"00000000".repeat(2)}`, "hex");
const words = (...parts: readonly (Buffer | string)[]): Buffer =>
  Buffer.concat([
    Buffer.alloc(4),
    ...parts.map((each) => (typeof each === "string" ? Buffer.from(six.hex6(each), "hex") : each)),
  ]);

const neighbourAttacks: readonly NeighbourAttack[] = [
  [
    "a router that advertises itself",
    async (member) => {
      send6(member, [six.icmp6({ from: claimed, to: allNodes }, 134, advertised)], true);
      const isBelieved = await shows(() => onHostIp("route", "show", "default", "dev", member.link), claimed);
      if (isBelieved) onHostIp("route", "del", "default", "dev", member.link);
      return isBelieved;
    },
  ],
  [
    "a neighbour that asks",
    async (member) => {
      const body = words("fe80::1", six.hardwareOption(1, raw.foreignMac));
      send6(member, [six.icmp6({ from: claimed, to: "fe80::1" }, 135, body)]);
      return await shows(() => onHostIp("neigh", "show", "dev", member.link), raw.foreignMac);
    },
  ],
  [
    "a neighbour that is at another hardware address all at once",
    async (member) => {
      onHostIp("neigh", "replace", known, "lladdr", "02:00:00:00:00:01", "dev", member.link, "nud", "stale");
      // it need not have been asked, and takes the place of what is known
      const body = Buffer.concat([words(known, six.hardwareOption(2, raw.foreignMac))]);
      body[0] = 0x20;
      send6(member, [six.icmp6({ from: known, to: allNodes }, 136, body)], true);
      const isBelieved = await shows(() => onHostIp("neigh", "show", known, "dev", member.link), raw.foreignMac);
      onHostIp("neigh", "del", known, "dev", member.link);
      return isBelieved;
    },
  ],
  [
    "a router that knows a better way",
    async (member) => {
      onHostIp("route", "replace", `${detour}/128`, "via", claimed, "dev", member.link, "onlink");
      send6(member, [six.icmp6({ from: claimed, to: gateway }, 137, words(otherClaimed, detour))]);
      const isBelieved = await shows(() => onHostIp("route", "get", detour), otherClaimed);
      onHostIp("route", "del", `${detour}/128`, "dev", member.link);
      return isBelieved;
    },
  ],
  [
    "a route of segments through the gateway to the LAN",
    (member) =>
      arrives6(member, [outside, "up0"], (text) => {
        const last = { from: member.address6, to: lan };
        const route = six.segments(protocols.udp, { last: lan, first: gateway });
        const payload = Buffer.concat([route, six.udp6(last, [5_000, 7_000], text)]);
        return [six.packet6({ from: member.address6, to: gateway }, routing, payload)];
      }),
  ],
];

/** What squashd sets for an interface is itself a protection; here it believes, and does, what its other end says. */
function trust({ link }: Member6): void {
  // it has neighbours then, and an address by which it is one
  squashd.netns.run("ip", "link", "set", link, "arp", "on");
  onHostIp("address", "add", "fe80::1/64", "dev", link, "nodad");
  const values = ["forwarding=0", "accept_ra=2", "accept_ra_defrtr=1", "autoconf=1", "accept_redirects=1"];
  for (const each of [...values, "seg6_enabled=1"]) squashd.netns.run("sysctl", "-qw", `${settings}.${link}.${each}`);
  squashd.netns.run("sysctl", "-qw", `${settings}.all.seg6_enabled=1`);
}

describe.skipIf(lacks("root"))("with an open policy,", () => {
  it.each(attacks)("%s is refused", async (_, run) => {
    expect(await run()).toBe(false);
  });

  it.each(neighbourAttacks)("%s is not believed", async (_, run) => {
    expect(await run(careless)).toBe(false);
  });

  it("what is public is reached, by TCP, UDP, ICMP and in fragments, with the host's address", async () => {
    expect(await attacker.reach.opens([web, 7_000])).toBe(true);
    expect(await attacker.reach.opens([web, 7_000], "udp")).toBe(true);
    raw.expectSuccess(true);
    expect(await pings6(attacker, web)).toBe(true);
    raw.expectSuccess(false);
    const ends = { from: attacker.address6, to: web };
    const text = mark();
    const datagram = six.udp6(ends, [5_000, 7_000], text.padEnd(40, "."));
    await using tap = await Tap.open(outside, "up0");
    send6(
      attacker,
      cut(protocols.udp, datagram, 16)
        .map(([next, payload]) => six.packet6(ends, next, payload))
        .toReversed(),
    );
    expect(await tap.hears(text.slice(8), 3_000)).toBe(true);
    const addresses = tap.frames.map((each) => each.subarray(22, 38).toString("hex"));
    expect(addresses).toContain(six.hex6(host));
    expect(addresses).not.toContain(six.hex6(attacker.address6));
  });

  it("the API stays closed also where an entry is the host's very address", async () => {
    await attacker.sandbox.setNetwork({ allow_net: [host, `[${host}]:${apiPort}`] });
    expect(await attacker.reach.opens([host, hostServer])).toBe(true);
    expect(await api(host)()).toBe(false);
    await attacker.sandbox.setNetwork({ allow_net: null });
  });
});

describe.skipIf(lacks("root"))("with an interface that trusts its other end,", () => {
  beforeAll(() => trust(careless));

  it.each(neighbourAttacks)("%s is not believed", async (_, run) => {
    expect(await run(careless)).toBe(false);
  });
});

/** The last of the file: it takes the protection away, which shows that the attacks are none that fail by themselves. */
describe.skipIf(lacks("root"))("without the firewall's table", () => {
  beforeAll(() => {
    openLinks(squashd.netns);
  });

  // the kernel drops such fragments by itself where something has it track connections, as the second table does
  const isTracked = ([name]: Attack): boolean => name.endsWith("with the ports in the second one");

  it.each(attacks.filter((attack) => !isTracked(attack)))("%s is a success", async (_, run) => {
    raw.expectSuccess(true);
    expect(await run()).toBe(true);
  });

  // an entry that an operator makes by hand is changed, whatever the interface's settings are
  it.each(neighbourAttacks.filter(([name]) => !name.includes("at another hardware address")))(
    "%s is not believed, by the interface's own settings",
    async (_, run) => {
      raw.expectSuccess(false);
      expect(await run(attacker)).toBe(false);
    },
  );

  it.each(neighbourAttacks)("%s is believed by an interface that trusts", async (_, run) => {
    raw.expectSuccess(true);
    expect(await run(careless)).toBe(true);
  });

  it.each(attacks.filter(isTracked))("and without the second one %s is a success", async (_, run) => {
    raw.expectSuccess(true);
    await squashd.end("SIGKILL");
    expect(await run()).toBe(true);
    await squashd.start();
  });
});
