import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { addressValue } from "../../../daemon/src/core/egress/firewall.js";
import { TestInternet, usualZone } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { frame, icmpv6 } from "../../support/packets.js";
import { mark, quietMs } from "../../support/raw-attacker.js";
import { sendFrames, Tap } from "../../support/raw-client.js";
import { netnsOf, Reach } from "../../support/reach.js";
import { TestSquashd } from "../../support/squashd.js";

const web = "2606:2800:220:1::1";
const otherWeb = "2606:2800:220:1::2";
const lan = "fd77::7";
const foreignResolver = "2001:4860:4860::8844";
const nat64 = "64:ff9b::c0a8:4d07";
const sixToFour = "2002:c0a8:4d07::1";
const teredo = "2001::c0a8:4d07";
const host = "2a0a:10::2";
const gateway = "fd00:10:200::1";
const hostPort = 6_100;
const hexOf = (address: string): string => addressValue(address).toString(16).padStart(32, "0");
const settings = "/proc/sys/net/ipv6/conf";

describe.skipIf(lacks("root", "nft"))("IPv6", () => {
  const squashd = new TestSquashd();
  const internet = new TestInternet(squashd);
  const extra = [web, otherWeb, lan, foreignResolver, nat64, sixToFour, teredo];
  let before: string;
  let servers: Reach;
  let onHost: Reach;

  /** What a host that is no router has of settings. */
  const hostSettings = (): string =>
    squashd.netns.run(
      "sh",
      "-c",
      `cd ${settings} && grep -H . all/forwarding default/forwarding down0/forwarding down0/accept_ra`,
    );

  async function box(id: string, allow: readonly string[] | null, deny: readonly string[] = []) {
    const sandbox = await squashd.client.create({
      id,
      allow_net: allow === null ? null : [...allow],
      deny_net: [...deny],
    });
    const reach = await Reach.from(netnsOf(sandbox));
    return {
      sandbox,
      reach,
      async [Symbol.asyncDispose]() {
        await reach[Symbol.asyncDispose]();
        await sandbox.destroy();
      },
    };
  }

  const open = (reach: Reach, address: string, port = 7000): Promise<boolean> => reach.opens([address, port]);

  beforeAll(async () => {
    await internet.start();
    const { netns } = squashd;
    internet.run("ip", "address", "add", "2a0a:10::1/64", "dev", "up0", "nodad");
    netns.run("ip", "address", "add", `${host}/64`, "dev", "down0", "nodad");
    netns.run("ip", "-6", "route", "add", "default", "via", "2a0a:10::1");
    for (const address of extra) internet.run("ip", "address", "add", `${address}/128`, "dev", "lo", "nodad");
    before = hostSettings();
    await squashd.start({ ...internet.env, SQUASH_SUBNET6: "fd00:10:200::/64" });
    servers = await Reach.from(internet.netns);
    for (const address of extra) for (const port of [53, 853, 7000, 8080]) await servers.listen([address, port]);
    onHost = await Reach.from(netns);
    for (const address of [host, gateway]) await onHost.listen([address, hostPort]);
    await internet.setZone({
      ...usualZone,
      "six.example.org": [{ type: "AAAA", name: "six.example.org", ttl: 60, data: web }],
      "rebind6.example.org": [{ type: "AAAA", name: "rebind6.example.org", ttl: 60, data: lan }],
      "rebind64.example.org": [{ type: "AAAA", name: "rebind64.example.org", ttl: 60, data: nat64 }],
    });
  });

  afterAll(async () => {
    try {
      await servers[Symbol.asyncDispose]();
      await onHost[Symbol.asyncDispose]();
      await squashd.end();
      // nothing of the network is left, and the host is what it was
      expect(hostSettings()).toBe(before);
      expect(squashd.netns.run("ip", "-6", "address", "show", "dev", "lo")).not.toContain(gateway);
    } finally {
      await internet[Symbol.asyncDispose]();
      await squashd[Symbol.asyncDispose]();
    }
  });

  it("is an address of the link's own, with a way out and nothing that the interface does by itself", async () => {
    await using one = await box("six-link", null);
    const { address6 } = await one.sandbox.info();
    expect(address6).toMatch(/^fd00:10:200::[\da-f]+$/);
    expect(await one.sandbox.network()).toMatchObject({ address6 });
    const inside = netnsOf(one.sandbox);
    expect(inside.run("ip", "-6", "-o", "address", "show", "dev", "eth0")).toMatch(
      new RegExp(`^\\d+: eth0 +inet6 ${address6}/128 scope global [^\\n]*\\n$`),
    );
    expect(inside.run("ip", "-6", "route", "show", "default")).toContain(`via ${gateway} dev eth0`);
    expect(inside.run("ip", "-6", "neigh", "show", "dev", "eth0")).toMatch(
      new RegExp(`^${gateway} lladdr .* PERMANENT`),
    );
    expect(await open(one.reach, web)).toBe(true);
    expect(await one.reach.opens([web, 7000], "udp")).toBe(true);
  });

  it("makes no router of the host's interfaces, and of the host only one for sandboxes", () => {
    const text = hostSettings();
    expect(text).toContain("all/forwarding:1");
    expect(text.replace("all/forwarding:1", "all/forwarding:0")).toBe(before);
    expect(squashd.netns.run("nft", "list", "chain", "inet", "squash", "closed6")).toContain("drop");
  });

  it.each([
    ["an address that is private", lan],
    ["IPv4 behind a NAT64", nat64],
    ["IPv4 in 6to4", sixToFour],
    ["IPv4 in Teredo", teredo],
  ])("does not reach %s, which an entry opens", async (_, address) => {
    await using one = await box("six-special", null);
    expect(await open(one.reach, address)).toBe(false);
    await one.sandbox.setNetwork({ allow_net: [address] });
    expect(await open(one.reach, address)).toBe(true);
  });

  it("does not reach the host, the gateway, or another sandbox", async () => {
    await using one = await box("six-host", ["::/0", "fd00::/8"]);
    await using other = await box("six-other", ["::/0"]);
    const address = (await other.sandbox.info()).address6!;
    await other.reach.listen([address, hostPort]);
    for (const each of [host, gateway, address])
      expect([each, await open(one.reach, each, hostPort)]).toEqual([each, false]);
    // the same from where there is no such firewall, and by an entry
    expect(await open(onHost, host, hostPort)).toBe(true);
    await one.sandbox.setNetwork({ allow_net: [host] });
    expect(await open(one.reach, host, hostPort)).toBe(true);
  });

  it("has names resolved to it, opens what they stand for, and refuses those that lead inside", async () => {
    await using one = await box("six-names", ["six.example.org", "rebind6.example.org", "rebind64.example.org"]);
    const answers = async (name: string): Promise<string> =>
      (await one.sandbox.exec(["nslookup", "-type=aaaa", name, "10.200.0.1"])).stdout;
    expect(await open(one.reach, web)).toBe(false);
    expect(await answers("six.example.org")).toContain(web);
    expect(await open(one.reach, web)).toBe(true);
    expect(await open(one.reach, otherWeb)).toBe(false);
    expect(await answers("rebind6.example.org")).not.toContain(lan);
    expect(await answers("rebind64.example.org")).not.toContain(nat64);
    expect(await open(one.reach, lan)).toBe(false);
    for (const port of [53, 853]) expect(await open(one.reach, foreignResolver, port)).toBe(false);
  });

  it("goes through the proxy on ports 80 and 443 under names, wherever it is said to go", async () => {
    await using one = await box("six-proxy", ["www.example.org"]);
    const from = internet.arrivals.length;
    // the name has an IPv4 address only, and the address that the client chose is not looked at
    await one.reach.hold("http", [otherWeb, 80], "www.example.org");
    await one.reach.hold("tls", [otherWeb, 443], "www.example.org");
    await expect(one.reach.hold("tls", [otherWeb, 443], "evil.other.net")).rejects.toThrow("closed");
    await internet.settled();
    expect(internet.seen("http", from)).toEqual(["http 93.184.216.34:80 www.example.org /stream"]);
    expect(internet.seen("tls", from)).toEqual(["tls 93.184.216.34:443 www.example.org"]);
    expect(await one.sandbox.network()).toMatchObject({ connections_refused: 1 });
  });

  it("is from the link's own address only, and no talk among neighbours", async () => {
    await using one = await box("six-forged", null);
    const own = hexOf((await one.sandbox.info()).address6!);
    const inside = netnsOf(one.sandbox);
    const router = / lladdr (\S+)/.exec(inside.run("ip", "-6", "neigh", "show", "dev", "eth0"))![1]!;
    const getsOut = async (source: string, type: number): Promise<boolean> => {
      const text = mark();
      await using tap = await Tap.open(internet.netns, "up0");
      const packet = icmpv6(source, hexOf(web), type, Buffer.concat([Buffer.from([0, 1, 0, 1]), Buffer.from(text)]));
      sendFrames(inside, "eth0", [frame(router, "02:53:02:00:00:99", 0x86dd, packet)]);
      return await tap.hears(text, quietMs);
    };
    expect(await getsOut(own, 128)).toBe(true);
    expect(await getsOut(`${own.slice(0, 28)}3fff`, 128)).toBe(false);
    expect(await getsOut(hexOf("fe80::1"), 128)).toBe(false);
    // solicitations and advertisements of routers and neighbours, redirects
    for (const type of [133, 134, 135, 136, 137]) expect([type, await getsOut(own, type)]).toEqual([type, false]);
  });

  it("is cut when a change closes it, and only then", async () => {
    await using one = await box("six-change", null);
    const handle = await one.reach.hold("echo", [web, 7000]);
    await one.sandbox.setNetwork({ allow_net: null, deny_net: [otherWeb] });
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(await one.reach.state(handle)).toMatchObject({ endedAt: null });
    await one.sandbox.setNetwork({ allow_net: null, deny_net: [web] });
    await expect.poll(async () => (await one.reach.state(handle)).endedAt, { timeout: 2_000 }).not.toBeNull();
  });
});
