import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { addressesIn } from "./testing/dns-client.js";
import { Harness } from "./testing/harness.js";

const code = { refused: 5 };
const at = "127.0.0.2";
let harness: Harness;

beforeEach(async () => {
  harness = await Harness.start();
  harness.know(at, { allow: ["a.example.org"] });
});
afterEach(() => harness.close());

describe("answers that point inside", () => {
  const special = [
    ["127.0.0.1", "loopback"],
    ["127.8.9.10", "loopback"],
    ["10.0.0.1", "private"],
    ["172.16.0.1", "private"],
    ["192.168.1.1", "private"],
    ["169.254.169.254", "link-local, where clouds keep credentials"],
    ["100.64.0.1", "shared by carriers"],
    ["0.0.0.0", "this host"],
    ["224.0.0.1", "multicast"],
    ["255.255.255.255", "broadcast"],
    ["::1", "loopback"],
    ["::", "unspecified"],
    ["::ffff:10.0.0.1", "IPv4 as IPv6"],
    ["64:ff9b::a00:1", "IPv4 behind a translator"],
    ["fe80::1", "link-local"],
    ["fd00::1", "unique local"],
    ["ff02::1", "multicast"],
  ] as const;

  it.each(special)("are refused as a whole: %s (%s)", async (address) => {
    await harness.close();
    harness = await Harness.start({ ipv6: true });
    harness.know(at, { allow: ["rebind.example.org"] });
    const type = address.includes(":") ? "AAAA" : "A";
    const good = type === "A" ? "192.0.2.1" : "2001:4860::1";
    harness.upstream.give("rebind.example.org", [good, address, good]);
    const client = await harness.udp(at);
    expect(await client.ask("rebind.example.org", { type })).toMatchObject({ code: code.refused, answers: [] });
    expect(harness.learned).toEqual([]);
    expect(harness.audited).toHaveLength(1);
    expect(harness.audited[0]).toMatchObject({ name: "rebind.example.org", allowed: false, rule: "private address" });
    expect(harness.audited[0]?.address).not.toBe(good);
  });

  it("are refused through an alias, too, and on later questions from the cache", async () => {
    harness.upstream.on("a.example.org", "A", {
      answers: [
        { type: "CNAME", name: "a.example.org", ttl: 60, data: "localhost.evil.example" },
        { type: "A", name: "localhost.evil.example", ttl: 60, data: "10.1.2.3" },
      ],
    });
    const client = await harness.udp(at);
    for (let i = 0; i < 2; i += 1) expect((await client.ask("a.example.org")).code).toBe(code.refused);
    expect(harness.audited).toMatchObject([{ address: "10.1.2.3" }, { address: "10.1.2.3" }]);
    expect(harness.learned).toEqual([]);
    expect(harness.upstream.count("a.example.org")).toBe(1);
  });

  it("are given where the policy has an entry for them, to that sandbox only", async () => {
    harness.know("127.0.0.3", { allow: ["a.example.org"], accept: ["10.1.2.3"] });
    harness.upstream.give("a.example.org", ["10.1.2.3"]);
    const [client, other] = [await harness.udp(at), await harness.udp("127.0.0.3")];
    expect(addressesIn(await other.ask("a.example.org"))).toEqual(["10.1.2.3"]);
    expect((await client.ask("a.example.org")).code).toBe(code.refused);
  });

  it("give IPv6 addresses where sandboxes have IPv6", async () => {
    await harness.close();
    harness = await Harness.start({ ipv6: true });
    harness.know(at, { allow: ["a.example.org"] });
    harness.upstream.give("a.example.org", ["2001:4860::1"]);
    const client = await harness.udp(at);
    expect(addressesIn(await client.ask("a.example.org", { type: "AAAA" }))).toEqual(["2001:4860::1"]);
    expect(harness.learned).toMatchObject([{ addresses: ["2001:4860::1"] }]);
  });
});
