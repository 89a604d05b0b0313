import { describe, expect, it } from "vitest";
import { addressNumber } from "../core/egress/firewall.js";
import { hostFirewall, subnet6IsFree, subnetIsFree } from "./network-checks.js";

const subnet = { cidr: "10.200.0.0/14", base: addressNumber("10.200.0.0"), gateway: "10.200.0.1", ipv6: null };
const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
const route = (name: string, destination: string, mask: string): string =>
  `${name}\t${destination}\t00000000\t0001\t0\t0\t0\t${mask}\t0\t0\t0\n`;

describe("subnetIsFree()", () => {
  it.each([
    ["the default route", "eth0", "00000000", "00000000", true],
    ["a network before", "eth0", "0000C60A", "0000FEFF", true],
    ["a network behind", "eth0", "0000CC0A", "0000FCFF", true],
    ["a link of squashd's own", "sq17h", "1300C80A", "FFFFFFFF", true],
    ["an interface that only looks like one", "sq17hx", "1300C80A", "FFFFFFFF", false],
    ["a host in it", "eth0", "1300C90A", "FFFFFFFF", false],
    ["a network around it", "tun0", "0000000A", "000000FF", false],
    ["its last address", "eth0", "FFFFCB0A", "FFFFFFFF", false],
  ])("looks at %s", (_, name, destination, mask, ok) => {
    const found = subnetIsFree(subnet, head + route("lo", "0000007F", "000000FF") + route(name, destination, mask));
    expect(found.ok).toBe(ok);
    if (!ok) expect(found.found).toContain(`over ${name}`);
  });
});

describe("subnet6IsFree()", () => {
  const subnet6 = { cidr: "fd00:10:200::/64", base: 0xfd000010_02000000n << 64n, gateway: "fd00:10:200::1" };
  const none = "0".repeat(32);
  const route6 = (name: string, destination: string, length: string): string =>
    `${destination.padEnd(32, "0")} ${length} ${none} 00 ${none} 00000400 00000001 00000000 00000001 ${name.padStart(8)}\n`;

  it.each([
    ["the default route", "eth0", "", "00", true],
    ["another network", "eth0", "fd00001002010000", "40", true],
    ["a link of squashd's own", "sq17h", "fd00001002000000" + "0000000000000013", "80", true],
    ["an interface that only looks like one", "sq17hx", "fd00001002000000" + "0000000000000013", "80", false],
    ["the gateway's address", "lo", "fd00001002000000" + "0000000000000001", "80", true],
    ["the same network", "eth0", "fd00001002000000", "40", false],
    ["a network around it", "tun0", "fd000010", "20", false],
  ])("looks at %s", (_, name, destination, length, ok) => {
    const found = subnet6IsFree(subnet6, route6("lo", "1".padStart(32, "0"), "80") + route6(name, destination, length));
    expect(found.ok).toBe(ok);
    if (!ok) expect(found.found).toContain(`over ${name}`);
  });

  it("wants a kernel with IPv6", () => {
    expect(subnet6IsFree(subnet6, null).ok).toBe(false);
  });
});

describe("hostFirewall()", () => {
  const chain = (table: string, name: string, hook: string, policy: string): string =>
    `table ${table} {\n\tchain ${name} {\n\t\ttype filter hook ${hook} priority filter; policy ${policy};\n\t}\n}\n`;

  it("names the chains that drop by their policy, but for squashd's own", () => {
    const text =
      chain("ip filter", "FORWARD", "forward", "drop") +
      chain("inet other", "in", "input", "drop") +
      chain("inet other", "out", "output", "drop") +
      chain("inet squash", "forward", "forward", "drop") +
      chain("ip6 filter", "FORWARD", "forward", "accept");
    expect(hostFirewall(text)).toMatchObject({ ok: false, found: "ip filter FORWARD, inet other in drops by default" });
  });

  it("is content where nothing drops", () => {
    expect(hostFirewall("")).toMatchObject({ ok: true });
    expect(hostFirewall(chain("ip filter", "FORWARD", "forward", "accept"))).toMatchObject({ ok: true });
  });
});
