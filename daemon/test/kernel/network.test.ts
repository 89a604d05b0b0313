import { afterEach, describe, expect, it } from "vitest";
import { clientElements } from "../../src/core/egress/elements.js";
import { addressNumber, addressText, linkAddress, type FirewallElement } from "../../src/core/egress/firewall.js";
import { SandboxNetworks } from "../../src/core/egress/networks.js";
import type { Decision } from "../../src/core/egress/decision.js";
import { networkSettings } from "../../src/core/egress/settings.js";
import { renderRuleset } from "../../src/kernel/network/ruleset.js";
import { FakePlane, Steps } from "../../src/core/egress/testing/fake-firewall.js";
import { policyOf } from "../../src/core/egress/testing/ask.js";
import { lacks } from "../../../test/support/needs.js";
import { eventually, facts, subnet, useNetwork, worldTcpPort, type PacketAgent } from "./test-network.js";

const web = "93.184.216.34";
const linkKey = (name: string): string => Buffer.from(name).toString("hex").padEnd(32, "0");

describe.skipIf(lacks("root", "nft"))("the network of cells", () => {
  const bed = useNetwork();
  const audited: Decision[] = [];
  const attached: number[] = [];

  function networks(): SandboxNetworks {
    audited.length = 0;
    const audit = (decision: Decision): void => void audited.push(decision);
    return new SandboxNetworks({
      firewall: bed.firewall,
      plane: new FakePlane(new Steps()),
      audit,
      secretEvents: { used: () => undefined, rotated: () => undefined },
    });
  }

  afterEach(async () => {
    for (const index of attached.splice(0)) await bed.end(index);
  });

  async function cell(index: number): Promise<PacketAgent> {
    attached.push(index);
    return bed.cell(index);
  }

  const elements = (index: number, allow: string): FirewallElement[] =>
    clientElements({
      index,
      address: linkAddress(subnet, index),
      address6: null,
      hasSecrets: false,
      policy: policyOf(allow),
      connectionsPerS: null,
    });
  const listed = (kind: "set" | "map", name: string): string => bed.nft(["list", kind, "inet", "squash", name]);
  /** Everything that is in the sets, but counters and times, sorted: the kernel lists elements in no order, and arranges them anew when it likes. */
  const state = (): string[] =>
    bed
      .nft(["list", "table", "inet", "squash"])
      .replaceAll(/(packets|bytes) \d+|expires \w+/g, "")
      .replace(/set (tracked|noisy|queries) \{[^}]*\}[^}]*\}/g, "")
      .split(/[\n,{}]/)
      .map((part) => part.trim())
      .toSorted();

  describe("a link", () => {
    it("has its addresses, neighbours and routes on both sides, and no IPv6", async () => {
      await cell(7);
      const inside = (line: string): string => bed.inside(7, line);
      const outside = (line: string): string => bed.machine.netns.run(...(line.split(" ") as [string, ...string[]]));
      expect(inside("ip -4 -o addr show dev eth0")).toContain("inet 10.200.0.9/32");
      expect(inside("ip route")).toBe("default via 10.200.0.1 dev eth0 proto static onlink \n");
      expect(inside("ip neigh show dev eth0")).toMatch(/^10\.200\.0\.1 lladdr 02:53:01:00:00:07 PERMANENT/);
      expect(inside("ip -6 addr show dev eth0")).toBe("");
      expect(inside("ip -o link show dev eth0")).toMatch(/NOARP,UP.*link\/ether 02:53:02:00:00:07/);
      expect(outside("ip -o link show dev sq7h")).toMatch(/NOARP,UP.* group 21329 .*link\/ether 02:53:01:00:00:07/);
      expect(outside("ip route show dev sq7h")).toBe("10.200.0.9 proto static scope link \n");
      expect(outside("ip neigh show dev sq7h")).toMatch(/^10\.200\.0\.9 lladdr 02:53:02:00:00:07 PERMANENT/);
      expect(outside("ip -6 addr show dev sq7h")).toBe("");
      expect(outside("ip -4 -o addr show dev lo")).toContain("inet 10.200.0.1/32");
      for (const [name, value] of [
        ["rp_filter", 1],
        ["forwarding", 1],
        ["accept_redirects", 0],
        ["send_redirects", 0],
      ])
        expect([name, outside(`cat /proc/sys/net/ipv4/conf/sq7h/${name}`)]).toEqual([name, `${value}\n`]);
    });

    it("goes with its cell, and the next cell of the number has one again", async () => {
      await cell(8);
      expect(bed.machine.netns.links()).toEqual(["sq8h"]);
      await bed.end(8);
      await eventually(() => bed.machine.netns.links().length === 0, "no link");
      await bed.cell(8);
      expect(bed.machine.netns.links()).toEqual(["sq8h"]);
    });

    it("lets nothing pass before its cell is attached, nor from another address", async () => {
      const agent = await cell(9);
      const before = bed.world.news.length;
      const packets = [{ address: web, port: 7, text: "closed" }];
      await agent.order({ op: "send", packets }, "sent");
      await bed.firewall.update([], elements(9, ""));
      // the next one is from a forged address, then one from the true one
      bed.inside(
        9,
        "ip addr add 10.200.0.99/32 dev eth0 && ip route replace default via 10.200.0.1 dev eth0 onlink src 10.200.0.99",
      );
      await agent.order({ op: "send", packets: [{ address: web, port: 7, text: "forged" }] }, "sent");
      bed.inside(9, "ip route replace default via 10.200.0.1 dev eth0 onlink src 10.200.0.11");
      await agent.order({ op: "send", packets: [{ address: web, port: 7, text: "true" }] }, "sent");
      await bed.world.hear("arrived true", before);
      expect(bed.world.news.slice(before)).toEqual(["arrived true"]);
      await bed.firewall.update(elements(9, ""), []);
    });
  });

  describe("elements", () => {
    const all: FirewallElement[] = [
      ...clientElements({
        index: 3,
        address: linkAddress(subnet, 3),
        address6: null,
        hasSecrets: false,
        policy: policyOf("10.1.0.0/16 93.184.216.34:22 *.example.org 8.8.8.8:53/udp", "1.0.0.0/8"),
        connectionsPerS: 25,
      }),
      { set: "learned", key: "0ac800055db8d822", mark: 1, timeoutS: 100 },
      { set: "learned_port", key: "0ac800055db8d823" + "06000000" + "15380000", mark: 2, timeoutS: 100 },
    ];

    it("are read by nft as they are meant, and removed again", async () => {
      const before = state();
      await bed.firewall.update([], all);
      expect(listed("set", "links")).toContain('"sq3h" . 10.200.0.5');
      for (const name of ["asking", "proxied", "refused"]) expect(listed("set", name)).toContain('"sq3h"');
      expect(listed("set", "rates")).toMatch(/"sq3h" limit rate over 25\/second burst 25 packets/);
      expect(listed("map", "mode")).toContain('"sq3h" : 0x0000000e');
      expect(listed("map", "net16")).toContain("10.200.0.5 . 10.1.0.0 : 0x00000001");
      expect(listed("map", "net8")).toContain("10.200.0.5 . 1.0.0.0 : 0x00000002");
      // nft has the names of protocols from /etc/protocols, which is not everywhere
      expect(listed("map", "port32")).toMatch(/10\.200\.0\.5 \. 93\.184\.216\.34 \. (tcp|6) \. 22 : 0x00000001/);
      expect(listed("map", "port32")).toMatch(/10\.200\.0\.5 \. 8\.8\.8\.8 \. (udp|17) \. 53 : 0x00000001/);
      expect(listed("map", "learned")).toMatch(/10\.200\.0\.5 \. 93\.184\.216\.34 timeout 1m40s .* : 0x00000001/);
      expect(listed("map", "learned_port")).toMatch(
        /93\.184\.216\.35 \. (tcp|6) \. 5432 timeout 1m40s .* : 0x00000002/,
      );
      await bed.firewall.update(all, []);
      expect(state()).toEqual(before);
    });

    it.each<[string, FirewallElement[], FirewallElement[], string]>([
      ["a set that is not there", [], [{ set: "net33", key: "0ac8000501000000", mark: 1 }], "ENOENT"],
      ["a key of another size", [], [{ set: "asking", key: "0ac800050000" }], "EINVAL"],
      ["what is not there to be removed", [{ set: "asking", key: linkKey("sq4h") }], [], "ENOENT"],
      ["another value for a key", [], [{ set: "mode", key: linkKey("sq3h"), mark: 11 }], "EEXIST|EBUSY"],
    ])("change all or none: %s", async (_, remove, add, errno) => {
      await bed.firewall.update([], all);
      const before = state();
      const more: FirewallElement[] = [{ set: "asking", key: linkKey("sq99h") }];
      const change = bed.firewall.update([all[2]!, ...remove], [...more, ...add]);
      await expect(change).rejects.toMatchObject({ code: "kernel", details: { errno: expect.stringMatching(errno) } });
      expect(state()).toEqual(before);
      await bed.firewall.update(all, []);
    });

    it("may be there already, and be exchanged in one change", async () => {
      await bed.firewall.update([], all);
      await bed.firewall.update([], all);
      const mode = all.find(({ set }) => set === "mode")!;
      await bed.firewall.update([mode], [{ ...mode, mark: 11 }]);
      expect(listed("map", "mode")).toContain('"sq3h" : 0x0000000b');
      await bed.firewall.update(all, []);
    });

    it("go by themselves after their time", async () => {
      const short: FirewallElement[] = [{ set: "learned", key: "0ac8000501020304", mark: 1, timeoutS: 1 }];
      await bed.firewall.update([], short);
      await eventually(() => !listed("map", "learned").includes("1.2.3.4"), "an empty map");
      await expect(bed.firewall.update(short, [])).rejects.toMatchObject({ details: { errno: "ENOENT" } });
    });

    it("of the largest policies and answers fit into one change", async () => {
      const ports = (from: number, host: string): string[] =>
        Array.from({ length: 255 }, (_, at) => `${host}:${from + at}`);
      const settings = (from: number, host: string) =>
        networkSettings({
          allow_net: ports(from, "*.example").concat(`${host}:1`),
          deny_net: ports(from, host).concat(`${host}:2`),
        });
      await cell(4);
      const sandboxes = networks();
      await sandboxes.attach(4, "large", settings(1_000, "93.184.216.34"));
      for (let at = 0; at < 4; at++) {
        const addresses = [...Array(8).keys()].map((each) => `45.11.${at}.${each}`);
        await sandboxes.learn("10.200.0.6", "a.example", { addresses, ttlS: 60 });
      }
      await sandboxes.change(4, settings(20_000, "93.184.216.35"));
      expect(listed("map", "learned_port").match(/20254/g)?.length).toBeGreaterThan(5);
      await sandboxes.detach(4);
      expect(listed("map", "learned_port")).not.toContain("elements");
    });
  });

  describe("connections", () => {
    it("are counted, and listed as the sandbox opened them", async () => {
      const agent = await cell(10);
      const sandboxes = networks();
      await sandboxes.attach(10, "box", networkSettings({ allow_net: [`${web}:${worldTcpPort}`, `${web}:7/udp`] }));
      await agent.order({ op: "connect", address: web, port: worldTcpPort }, "connected");
      const packets = [
        { address: web, port: 7, text: "counted" },
        { address: web, port: 22, text: "refused" },
        { address: subnet.gateway, port: 53, text: "a question" },
      ];
      await agent.order({ op: "send", packets }, "sent");
      await bed.world.hear("arrived counted");
      await eventually(async () => (await bed.firewall.flows(10)).length === 3, "three flows");
      const flows = (await bed.firewall.flows(10)).map(({ destination, destinationPort, protocol, redirected }) => ({
        to: `${addressText(destination)}:${destinationPort}/${protocol}`,
        redirected,
      }));
      expect(flows.toSorted((a, b) => (a.to < b.to ? -1 : 1))).toEqual([
        { to: "10.200.0.1:53/17", redirected: true },
        { to: `${web}:7/17`, redirected: false },
        { to: `${web}:${worldTcpPort}/6`, redirected: false },
      ]);
      const usage = await sandboxes.usage(10);
      expect(usage).toMatchObject({ connections_open: 2, connections_refused: 1 });
      expect(usage.sent_packets).toBeGreaterThanOrEqual(5);
      expect(usage.sent_bytes).toBeGreaterThan(5 * 28);
      expect(usage.received_packets).toBeGreaterThanOrEqual(2);
      await sandboxes.detach(10);
      expect(await bed.firewall.flows(10)).toEqual([]);
    });

    it("end when they are not allowed any more, and only those", async () => {
      const [agent, other] = [await cell(11), await cell(12)];
      const sandboxes = networks();
      for (const index of [11, 12]) await sandboxes.attach(index, `box-${index}`, networkSettings({}));
      for (const each of [agent, other])
        await each.order({ op: "connect", address: web, port: worldTcpPort }, "connected");
      await agent.order({ op: "write", text: "before" }, "data before");
      await sandboxes.change(11, networkSettings({ deny_net: ["1.2.3.4"] }));
      await agent.order({ op: "write", text: "still" }, "data still");
      await sandboxes.change(11, networkSettings({ deny_net: [web] }));
      await agent.order({ op: "write", text: "after" }, "error ECONNRESET");
      expect(agent.news).not.toContain("data after");
      await other.order({ op: "write", text: "other" }, "data other");
      for (const index of [11, 12]) await sandboxes.detach(index);
    });

    it("are told of in the audit log, with what decided", async () => {
      const agent = await cell(13);
      const sandboxes = networks();
      await sandboxes.attach(13, "box", networkSettings({ allow_net: [`${web}/32`] }));
      const packets = [
        { address: web, port: 7, text: "told" },
        { address: "45.11.0.9", port: 22, text: "refused" },
      ];
      await agent.order({ op: "send", packets }, "sent");
      await eventually(() => audited.length >= 2, "two decisions");
      const common = { sandbox: "box", kind: "connection", name: null, protocol: "udp" };
      expect(audited).toEqual([
        { ...common, address: web, port: 7, allowed: true, rule: `allow ${web}/32` },
        { ...common, address: "45.11.0.9", port: 22, allowed: false, rule: "default: nothing else" },
      ]);
      await sandboxes.detach(13);
    });

    it("are limited in number a second", async () => {
      const agent = await cell(14);
      const sandboxes = networks();
      await sandboxes.attach(14, "box", networkSettings({ net_limits: { connections_per_s: 5 } }));
      const packets = [...Array(60).keys()].map((at) => ({ address: `45.12.0.${at}`, port: 7, text: `limited ${at}` }));
      await agent.order({ op: "send", packets }, "sent");
      const arrived = (): number => bed.world.news.filter((news) => news.startsWith("arrived limited")).length;
      await eventually(
        async () => arrived() + (await sandboxes.usage(14)).connections_refused === 60,
        "a decision on all",
      );
      expect(arrived()).toBeGreaterThanOrEqual(5);
      expect(arrived()).toBeLessThan(30);
      await sandboxes.detach(14);
    });
  });

  it.each([
    {},
    { apiPort: 7080, connectionLimit: 1 },
    { closedInterfaces: ["eth0", "wg-1.5@x", "a_b"] },
    { specialRanges: ["10.0.0.0/8"], subnet: "100.64.0.0/10", gateway: "100.64.0.1" },
  ])("nft accepts the rules with %j, and loads them over those that are there", (more) => {
    const text = renderRuleset({ ...facts, ...more });
    bed.nft(["-c", "-f", "-"], text);
    bed.nft(["-f", "-"], text);
    bed.nft(["-f", "-"], renderRuleset(facts));
    expect(listed("set", "special")).toContain("192.88.99.0/24");
  });

  it("bandwidth is limited at both ends, and the limit goes again", async () => {
    await cell(15);
    const outside = (): string => bed.machine.netns.run("tc", "qdisc", "show", "dev", "sq15h");
    const inside = (): string => bed.inside(15, "tc qdisc show dev eth0");
    const none = [outside(), inside()];
    await bed.firewall.shape(15, { toCell: 125_000, fromCell: 250_000 });
    expect(outside()).toMatch(/qdisc tbf .* rate 1Mbit burst 128Kb/);
    expect(inside()).toMatch(/qdisc tbf .* rate 2Mbit burst 128Kb/);
    await bed.firewall.shape(15, { toCell: 0, fromCell: 12_500_000_000 });
    expect([outside(), inside()]).toEqual([none[0], expect.stringMatching(/qdisc tbf .* rate 100Gbit/)]);
    await bed.firewall.shape(15, { toCell: 0, fromCell: 0 });
    await bed.firewall.shape(15, { toCell: 0, fromCell: 0 });
    expect([outside(), inside()]).toEqual(none);
    await expect(bed.firewall.shape(16, { toCell: 1, fromCell: 1 })).rejects.toMatchObject({ code: "kernel" });
  });

  it("of nobody has figures of zero at most, and no flows", async () => {
    await expect(bed.firewall.traffic(500)).rejects.toMatchObject({ details: { errno: "ENODEV" } });
    expect(await bed.firewall.flows(500)).toEqual([]);
    const flow = { destination: addressNumber(web), destinationPort: 1, sourcePort: 2, protocol: 6, redirected: false };
    await bed.firewall.cut(500, [flow, { ...flow, protocol: 1, destinationPort: 0x0800 }]);
  });
});
