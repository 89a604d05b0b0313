import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { addressNumber } from "./firewall.js";
import { broken } from "./testing/fake-firewall.js";
import { address, elementsOf, flow, learnedOf, NetworkBed, settings, web } from "./testing/network-bed.js";

let bed: NetworkBed;

beforeEach(() => {
  bed = new NetworkBed();
  vi.useFakeTimers({ toFake: ["Date"], now: Date.parse("2026-01-01T00:00:00Z") });
});
afterEach(() => vi.useRealTimers());

describe("learn()", () => {
  it("opens the IPv4 addresses of an allowed name", async () => {
    await bed.attached("www.example.org");
    await bed.learn("www.example.org", web, "2606:2800:220:1::1");
    expect(bed.firewall.sets.state()).toContain(learnedOf(web));
    expect([bed.steps.taken, bed.networks.learned]).toEqual([["update -0 +1"], 1]);
    await bed.learn("www.example.org", web);
    expect(bed.steps.taken).toHaveLength(1);
  });

  it("does nothing where no name is enforced", async () => {
    await bed.attached("");
    await bed.learn("www.example.org", web);
    expect([bed.steps.taken, bed.networks.learned]).toEqual([[], 0]);
  });

  it("refuses a name that the policy does not allow any more", async () => {
    await bed.attached("www.example.org");
    await bed.networks.change(5, settings("other.example"));
    await expect(bed.learn("www.example.org", web)).rejects.toMatchObject({ code: "invalid_request" });
    expect(bed.firewall.sets.state()).toEqual(elementsOf("other.example"));
  });

  it("waits for a change that is under way, and is decided by the new policy", async () => {
    await bed.attached("www.example.org");
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    bed.steps.before = (step) => (step.startsWith("set") ? held : Promise.resolve());
    const changing = bed.networks.change(5, settings("other.example"));
    const learning = bed.learn("www.example.org", web);
    const refused = expect(learning).rejects.toMatchObject({ code: "invalid_request" });
    release();
    await Promise.all([changing, refused]);
    expect(bed.firewall.sets.state()).toEqual(elementsOf("other.example"));
  });

  it("refuses an address that no sandbox has, or has no more", async () => {
    await expect(bed.learn("www.example.org", web)).rejects.toMatchObject({ code: "sandbox_not_found" });
    await bed.attached("www.example.org");
    await bed.networks.detach(5);
    await expect(bed.learn("www.example.org", web)).rejects.toMatchObject({ code: "sandbox_not_found" });
    await expect(bed.networks.learn("1.2.3.4", "a", { addresses: [], ttlS: 1 })).rejects.toMatchObject({
      code: "sandbox_not_found",
    });
  });

  it("that the kernel refused can be repeated", async () => {
    await bed.attached("www.example.org");
    bed.steps.failing.set("update", broken);
    await expect(bed.learn("www.example.org", web)).rejects.toBe(broken);
    expect(bed.networks.learned).toBe(0);
    await bed.learn("www.example.org", web);
    expect(bed.firewall.sets.state()).toContain(learnedOf(web));
  });
});

describe("expire()", () => {
  it("lets go of what has ended, but not of what a connection uses", async () => {
    await bed.attached("www.example.org");
    await bed.learn("www.example.org", web, "93.184.216.35");
    bed.firewall.tracked.set(5, [flow(web, 22)]);
    vi.setSystemTime(Date.now() + 89_000);
    await bed.networks.expire();
    expect(bed.networks.learned).toBe(2);
    vi.setSystemTime(Date.now() + 1_000);
    await bed.networks.expire();
    expect(bed.firewall.sets.state().filter((element) => element.startsWith("learned"))).toEqual([learnedOf(web)]);
  });

  it("goes on with the others when one fails, and says so", async () => {
    await bed.attached("www.example.org");
    await bed.networks.attach(6, "other", settings("www.example.org"));
    await bed.learn("www.example.org", web);
    await bed.networks.learn("10.200.0.8", "www.example.org", { addresses: [web], ttlS: 60 });
    vi.setSystemTime(Date.now() + 90_000);
    bed.steps.failing.set("flows 5", broken);
    await expect(bed.networks.expire()).rejects.toBe(broken);
    expect(bed.firewall.sets.state().filter((element) => element.startsWith("learned"))).toEqual([learnedOf(web)]);
  });
});

describe("restore()", () => {
  it("tells an emptied firewall everything again", async () => {
    await bed.attached("www.example.org");
    await bed.networks.attach(6, "other", settings(""));
    await bed.learn("www.example.org", web);
    const before = bed.firewall.sets.state();
    bed.firewall.sets.clear();
    await bed.networks.restore();
    expect(bed.firewall.sets.state()).toEqual(before);
    await bed.networks.restore();
    await bed.networks.detach(5);
    await bed.networks.detach(6);
    expect(bed.firewall.sets.state()).toEqual([]);
  });

  it("opens nothing of a sandbox that is being detached", async () => {
    await bed.attached("");
    const [detaching, restoring] = [bed.networks.detach(5), bed.networks.restore()];
    await Promise.all([detaching, restoring]);
    expect(bed.firewall.sets.state()).toEqual([]);
  });
});

describe("usage()", () => {
  it("adds up what firewall and plane count", async () => {
    await bed.attached("");
    bed.firewall.usage = { sentBytes: 1, sentPackets: 2, receivedBytes: 3, receivedPackets: 4, refusedPackets: 5 };
    bed.plane.figures = { dnsAllowed: 6, dnsRefused: 7, dnsLimited: 8, openConnections: 99, refusedConnections: 10 };
    const dns = flow("10.200.0.1", 53, { protocol: 17, redirected: true });
    bed.firewall.tracked.set(5, [dns, flow(web, 443, { redirected: true }), flow(web, 53)]);
    expect(await bed.networks.usage(5)).toEqual({
      address,
      address6: null,
      gateway: "10.200.0.1",
      sent_bytes: 1,
      sent_packets: 2,
      received_bytes: 3,
      received_packets: 4,
      connections_open: 2,
      connections_refused: 15,
      dns_allowed: 6,
      dns_refused: 7,
      dns_limited: 8,
    });
  });
});

describe("the audit log", () => {
  const packet = { index: 5, allowed: true, destination: addressNumber(web), port: 22, protocol: 6 };

  it.each([
    [packet, { protocol: "tcp", port: 22, rule: "allow 93.184.216.34:22" }],
    [
      { ...packet, allowed: false, port: 23, protocol: 17 },
      { protocol: "udp", port: 23, rule: "default: nothing else" },
    ],
    [
      { ...packet, port: 23 },
      { protocol: "tcp", port: 23, rule: "resolved name" },
    ],
    [
      { ...packet, allowed: false },
      { protocol: "tcp", port: 22, rule: "protocol or limit" },
    ],
    [
      { ...packet, allowed: false, protocol: 1, port: 0 },
      { protocol: "icmp", port: null, rule: "protocol or limit" },
    ],
    [
      { ...packet, allowed: false, protocol: 47, port: 0 },
      { protocol: "other", port: null, rule: "protocol or limit" },
    ],
  ])("has a packet with the rule that decided: %j", async (logged, expected) => {
    await bed.attached("93.184.216.34:22 www.example.org");
    bed.firewall.log(logged);
    expect(bed.audited).toEqual([
      { sandbox: "box", kind: "connection", name: null, address: web, allowed: logged.allowed, ...expected },
    ]);
  });

  it("has nothing of cells that no sandbox has, and passes decisions of the plane on", () => {
    bed.firewall.log(packet);
    expect(bed.audited).toEqual([]);
    const decision = { sandbox: "box", kind: "dns", name: "a", address: null, port: null, protocol: "udp" } as const;
    bed.networks.decided({ ...decision, allowed: true, rule: "r" });
    expect(bed.audited).toEqual([{ ...decision, allowed: true, rule: "r" }]);
  });
});
