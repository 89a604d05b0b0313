import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { clientElements } from "./elements.js";
import { addressNumber, type Flow } from "./firewall.js";
import { networkSettings, type NetworkWish } from "./settings.js";
import { policyOf } from "./testing/ask.js";
import { broken, gone, networkBed, type NetworkBed } from "./testing/fake-firewall.js";
import { describeElements } from "./testing/kernel-sets.js";

const address = "10.200.0.7";
const web = "93.184.216.34";

let bed: NetworkBed;

beforeEach(() => {
  bed = networkBed();
  vi.useFakeTimers({ toFake: ["Date"], now: Date.parse("2026-01-01T00:00:00Z") });
});
afterEach(() => vi.useRealTimers());

const settings = (allow: string, more: NetworkWish = {}) =>
  networkSettings({ allow_net: allow === "" ? null : allow.split(" "), ...more });

/** What the kernel has for cell 5 when only its policy says so. */
function elementsOf(allow: string, deny = "", connectionsPerS: number | null = null): string[] {
  const policy = policyOf(allow, deny);
  return describeElements(clientElements({ index: 5, address: addressNumber(address), policy, connectionsPerS }));
}

async function attached(allow: string, more: NetworkWish = {}): Promise<void> {
  await bed.networks.attach(5, "box", settings(allow, more));
  bed.steps.taken.length = 0;
}

const learn = (name: string, ...addresses: string[]): Promise<void> =>
  bed.networks.learn(address, name, { addresses, ttlS: 60 });

const flow = (to: string, port: number, more: Partial<Flow> = {}): Flow => ({
  destination: addressNumber(to),
  destinationPort: port,
  sourcePort: 40_000,
  protocol: 6,
  redirected: false,
  ...more,
});

const learnedOf = (to: string): string => `learned 0ac80007${addressNumber(to).toString(16).padStart(8, "0")} 1`;

describe("attach()", () => {
  it("opens the link last, when plane and limits are there", async () => {
    bed.steps.watch = (step) => {
      if (!step.startsWith("update")) expect([step, bed.firewall.sets.state()]).toEqual([step, []]);
    };
    await bed.networks.attach(5, "box", settings("example.org", { net_limits: { down_kbit: 80, up_kbit: 64 } }));
    expect(bed.steps.taken).toEqual(["set 10.200.0.7 box example.org", "shape 5 10000 8000", "update -0 +5"]);
    expect(bed.firewall.sets.state()).toEqual(elementsOf("example.org"));
    expect(bed.plane.clients.get(address)).toEqual({
      sandbox: "box",
      address,
      spec: { allow: ["example.org"], deny: [] },
    });
    expect(bed.networks.addressOf(5)).toBe(address);
  });

  it("sets no bandwidth where there is no limit, and a rate of connections where there is", async () => {
    await bed.networks.attach(5, "box", settings("", { net_limits: { connections_per_s: 9 } }));
    expect(bed.steps.taken.some((step) => step.startsWith("shape"))).toBe(false);
    expect(bed.firewall.sets.state()).toEqual(elementsOf("", "", 9));
  });

  it.each(["set", "shape", "update"])("that fails at %s opens nothing, and is undone by detach()", async (step) => {
    bed.steps.failing.set(step, broken);
    const limited = settings("example.org", { net_limits: { down_kbit: 80 } });
    await expect(bed.networks.attach(5, "box", limited)).rejects.toBe(broken);
    expect(bed.firewall.sets.state()).toEqual([]);
    await bed.networks.detach(5);
    expect(bed.plane.clients.size).toBe(0);
  });

  it("refuses what is no policy, before anything", async () => {
    expect(() => bed.networks.check(settings("exa%mple"))).toThrow(
      expect.objectContaining({ code: "invalid_request" }),
    );
    expect(() => bed.networks.check(settings("10.200.3.4"))).toThrow(/sandboxes' own network/);
    await expect(bed.networks.attach(5, "box", settings("exa%mple"))).rejects.toMatchObject({
      code: "invalid_request",
    });
    expect(bed.steps.taken).toEqual([]);
  });

  it("is over before a detach() that comes meanwhile, so that nothing is opened behind its back", async () => {
    const [attaching, detaching] = [bed.networks.attach(5, "box", settings("")), bed.networks.detach(5)];
    await Promise.all([attaching, detaching]);
    expect([bed.firewall.sets.state(), bed.plane.clients.size]).toEqual([[], 0]);
  });
});

describe("change()", () => {
  const cases: [string, string, string][] = [
    ["opens", "none", ""],
    ["closes", "", "none"],
    ["narrows", "93.184.0.0/16", "93.184.216.34 93.184.216.34:25"],
    ["exchanges", "*.example.org:22 10.1.0.0/16", "www.example.org 10.1.0.0/16:5432"],
  ];

  it.each(cases)("%s, with never more than either policy", async (_, from, to) => {
    await attached(from);
    await learn("www.example.org", web).catch(() => undefined);
    const before = bed.firewall.sets.state();
    const seen: string[][] = [];
    bed.steps.watch = () => seen.push(bed.firewall.sets.state());
    await bed.networks.change(5, settings(to));
    for (const state of seen) {
      const isOld = state.every((element) => before.includes(element));
      expect(isOld || state.every((element) => bed.firewall.sets.state().includes(element))).toBe(true);
    }
    const after = bed.firewall.sets.state().filter((element) => !element.startsWith("learned"));
    expect(after).toEqual(elementsOf(to));
    expect(bed.plane.clients.get(address)?.spec.allow ?? "").toEqual(to === "" ? "" : to.split(" "));
  });

  it("decides new connections first, then has the plane cut, then cuts itself", async () => {
    await attached("");
    await bed.networks.change(5, settings("example.org", { net_limits: { up_kbit: 64 } }));
    expect(bed.steps.taken).toEqual([
      "update -1 +2",
      "set 10.200.0.7 box example.org",
      "flows 5",
      "cut 5 0",
      "shape 5 0 8000",
    ]);
  });

  it("takes limits away, and leaves those alone that stay", async () => {
    const net_limits = { down_kbit: 80, connections_per_s: 5 };
    await attached("", { net_limits });
    await bed.networks.change(5, settings("none", { net_limits }));
    expect(bed.steps.taken.some((step) => step.startsWith("shape"))).toBe(false);
    await bed.networks.change(5, settings("none"));
    expect(bed.steps.taken.at(-1)).toBe("shape 5 0 0");
    expect(bed.firewall.sets.state()).toEqual(elementsOf("none"));
  });

  it("cuts exactly the connections that are not allowed any more", async () => {
    await attached("");
    const stay = [flow(web, 22), flow("93.184.216.35", 53, { protocol: 17 }), flow(web, 80, { redirected: true })];
    const go = [
      flow(web, 23),
      flow(web, 22, { protocol: 17 }),
      flow(web, 0x0800, { protocol: 1 }),
      flow("93.184.216.36", 53, { protocol: 17 }),
      flow(web, 0, { protocol: 47 }),
    ];
    bed.firewall.tracked.set(5, [...go, ...stay].toReversed());
    await bed.networks.change(5, settings("93.184.216.34:22 93.184.216.35:53/udp example.org"));
    expect(bed.firewall.tracked.get(5)).toEqual(stay.toReversed());
  });

  it("lets pings live only where they could be sent", async () => {
    await attached("example.org");
    const [ping, inside] = [flow(web, 0x0800, { protocol: 1 }), flow("10.1.2.3", 0x0800, { protocol: 1 })];
    bed.firewall.tracked.set(5, [ping, inside]);
    await bed.networks.change(5, settings(""));
    expect(bed.firewall.tracked.get(5)).toEqual([ping]);
    await bed.networks.change(5, settings("", { deny_net: ["example.net"] }));
    expect(bed.firewall.tracked.get(5)).toEqual([]);
  });

  it("keeps connections to resolved names while a name allows them", async () => {
    await attached("www.example.org other.example.org");
    await learn("www.example.org", web);
    await learn("other.example.org", "93.184.216.99");
    bed.firewall.tracked.set(5, [flow(web, 22), flow("93.184.216.99", 22), flow("93.184.216.77", 22)]);
    await bed.networks.change(5, settings("www.example.org"));
    expect(bed.firewall.tracked.get(5)).toEqual([flow(web, 22)]);
    await bed.networks.change(5, settings("www.example.org", { deny_net: ["93.184.216.0/24"] }));
    expect(bed.firewall.tracked.get(5)).toEqual([]);
  });

  it("cuts what went through the plane when nothing at all is allowed", async () => {
    await attached("");
    bed.firewall.tracked.set(5, [flow(web, 80, { redirected: true })]);
    await bed.networks.change(5, settings("none"));
    expect(bed.firewall.tracked.get(5)).toEqual([]);
  });

  it.each(["update", "set", "flows", "cut", "shape"])(
    "that fails at %s leaves the old state everywhere",
    async (step) => {
      await attached("www.example.org", { net_limits: { down_kbit: 80 } });
      await learn("www.example.org", web);
      const before = bed.firewall.sets.state();
      bed.steps.failing.set(step, broken);
      const wider = settings("*.example.org other.example 1.2.3.4", { net_limits: { down_kbit: 160 } });
      await expect(bed.networks.change(5, wider)).rejects.toBe(broken);
      expect(bed.firewall.sets.state()).toEqual(before);
      expect(bed.plane.clients.get(address)?.spec.allow).toEqual(["www.example.org"]);
      await expect(learn("other.example", web)).rejects.toMatchObject({ code: "invalid_request" });
      await bed.networks.change(5, settings("none"));
      expect(bed.firewall.sets.state()).toEqual(elementsOf("none"));
    },
  );

  it("that the kernel refused does not forget what names opened", async () => {
    await attached("www.example.org");
    await learn("www.example.org", web);
    bed.steps.failing.set("update", broken);
    await expect(bed.networks.change(5, settings("other.example"))).rejects.toBe(broken);
    expect(bed.firewall.sets.state()).toContain(learnedOf(web));
    await bed.networks.change(5, settings("other.example"));
    expect(bed.firewall.sets.state()).not.toContain(learnedOf(web));
  });

  it("copes with what the kernel dropped by itself", async () => {
    await attached("www.example.org www.example.net");
    await learn("www.example.org", web, "93.184.216.35");
    await learn("www.example.net", "93.184.216.36");
    bed.firewall.sets.update([{ set: "learned", key: "0ac800075db8d822" }], []);
    await bed.networks.change(5, settings("www.example.net"));
    expect(bed.firewall.sets.state()).toEqual(
      [...elementsOf("www.example.net"), learnedOf("93.184.216.36")].toSorted(),
    );
  });

  it("goes on after ENOENT only: another refusal is one", async () => {
    await attached("www.example.org");
    await learn("www.example.org", web, "93.184.216.35");
    bed.steps.failing.set("update", gone);
    bed.steps.failing.set("update -1 +0", broken);
    await expect(bed.networks.change(5, settings("none"))).rejects.toBe(broken);
  });

  it("of a cell without a network is an error", async () => {
    await expect(bed.networks.change(6, settings(""))).rejects.toMatchObject({ code: "internal" });
    await expect(bed.networks.usage(6)).rejects.toMatchObject({ code: "internal" });
  });
});

describe("detach()", () => {
  it("closes everything, and cuts, before the address passes on", async () => {
    await attached("www.example.org");
    await learn("www.example.org", web);
    bed.firewall.tracked.set(5, [flow(web, 80, { redirected: true }), flow(web, 22)]);
    bed.steps.taken.length = 0;
    await bed.networks.detach(5);
    expect(bed.steps.taken).toEqual(["update -6 +0", "remove 10.200.0.7", "flows 5", "cut 5 2"]);
    expect([bed.firewall.sets.state(), bed.firewall.tracked.get(5)]).toEqual([[], []]);
    expect(bed.networks.learned).toBe(0);
  });

  it("is idempotent", async () => {
    await bed.networks.detach(5);
    await attached("");
    await bed.networks.detach(5);
    bed.steps.taken.length = 0;
    await bed.networks.detach(5);
    expect(bed.steps.taken).toEqual([]);
  });

  it.each(["update", "remove", "flows", "cut"])(
    "that failed at %s can be repeated, and then does the rest",
    async (step) => {
      await attached("www.example.org");
      await learn("www.example.org", web);
      bed.firewall.tracked.set(5, [flow(web, 22)]);
      bed.steps.failing.set(step, broken);
      await expect(bed.networks.detach(5)).rejects.toBe(broken);
      await bed.networks.detach(5);
      expect([bed.firewall.sets.state(), bed.plane.clients.size, bed.firewall.tracked.get(5)]).toEqual([[], 0, []]);
    },
  );

  it("removes what is there when the kernel dropped some of it by itself", async () => {
    await attached("www.example.org");
    await learn("www.example.org", web, "93.184.216.35");
    bed.firewall.sets.update([{ set: "learned", key: "0ac800075db8d822" }], []);
    await bed.networks.detach(5);
    expect(bed.firewall.sets.state()).toEqual([]);
  });
});

describe("learn()", () => {
  it("opens the IPv4 addresses of an allowed name", async () => {
    await attached("www.example.org");
    await learn("www.example.org", web, "2606:2800:220:1::1");
    expect(bed.firewall.sets.state()).toContain(learnedOf(web));
    expect([bed.steps.taken, bed.networks.learned]).toEqual([["update -0 +1"], 1]);
    await learn("www.example.org", web);
    expect(bed.steps.taken).toHaveLength(1);
  });

  it("does nothing where no name is enforced", async () => {
    await attached("");
    await learn("www.example.org", web);
    expect([bed.steps.taken, bed.networks.learned]).toEqual([[], 0]);
  });

  it("refuses a name that the policy does not allow any more", async () => {
    await attached("www.example.org");
    await bed.networks.change(5, settings("other.example"));
    await expect(learn("www.example.org", web)).rejects.toMatchObject({ code: "invalid_request" });
    expect(bed.firewall.sets.state()).toEqual(elementsOf("other.example"));
  });

  it("waits for a change that is under way, and is decided by the new policy", async () => {
    await attached("www.example.org");
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    bed.steps.before = (step) => (step.startsWith("set") ? held : Promise.resolve());
    const changing = bed.networks.change(5, settings("other.example"));
    const learning = learn("www.example.org", web);
    const refused = expect(learning).rejects.toMatchObject({ code: "invalid_request" });
    release();
    await Promise.all([changing, refused]);
    expect(bed.firewall.sets.state()).toEqual(elementsOf("other.example"));
  });

  it("refuses an address that no sandbox has, or has no more", async () => {
    await expect(learn("www.example.org", web)).rejects.toMatchObject({ code: "sandbox_not_found" });
    await attached("www.example.org");
    await bed.networks.detach(5);
    await expect(learn("www.example.org", web)).rejects.toMatchObject({ code: "sandbox_not_found" });
    await expect(bed.networks.learn("1.2.3.4", "a", { addresses: [], ttlS: 1 })).rejects.toMatchObject({
      code: "sandbox_not_found",
    });
  });

  it("that the kernel refused can be repeated", async () => {
    await attached("www.example.org");
    bed.steps.failing.set("update", broken);
    await expect(learn("www.example.org", web)).rejects.toBe(broken);
    expect(bed.networks.learned).toBe(0);
    await learn("www.example.org", web);
    expect(bed.firewall.sets.state()).toContain(learnedOf(web));
  });
});

describe("expire()", () => {
  it("lets go of what has ended, but not of what a connection uses", async () => {
    await attached("www.example.org");
    await learn("www.example.org", web, "93.184.216.35");
    bed.firewall.tracked.set(5, [flow(web, 22)]);
    vi.setSystemTime(Date.now() + 89_000);
    await bed.networks.expire();
    expect(bed.networks.learned).toBe(2);
    vi.setSystemTime(Date.now() + 1_000);
    await bed.networks.expire();
    expect(bed.firewall.sets.state().filter((element) => element.startsWith("learned"))).toEqual([learnedOf(web)]);
  });

  it("goes on with the others when one fails, and says so", async () => {
    await attached("www.example.org");
    await bed.networks.attach(6, "other", settings("www.example.org"));
    await learn("www.example.org", web);
    await bed.networks.learn("10.200.0.8", "www.example.org", { addresses: [web], ttlS: 60 });
    vi.setSystemTime(Date.now() + 90_000);
    bed.steps.failing.set("flows 5", broken);
    await expect(bed.networks.expire()).rejects.toBe(broken);
    expect(bed.firewall.sets.state().filter((element) => element.startsWith("learned"))).toEqual([learnedOf(web)]);
  });
});

describe("restore()", () => {
  it("tells an emptied firewall everything again", async () => {
    await attached("www.example.org");
    await bed.networks.attach(6, "other", settings(""));
    await learn("www.example.org", web);
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
    await attached("");
    const [detaching, restoring] = [bed.networks.detach(5), bed.networks.restore()];
    await Promise.all([detaching, restoring]);
    expect(bed.firewall.sets.state()).toEqual([]);
  });
});

describe("usage()", () => {
  it("adds up what firewall and plane count", async () => {
    await attached("");
    bed.firewall.usage = { sentBytes: 1, sentPackets: 2, receivedBytes: 3, receivedPackets: 4, refusedPackets: 5 };
    bed.plane.figures = { dnsAllowed: 6, dnsRefused: 7, dnsLimited: 8, openConnections: 99, refusedConnections: 10 };
    const dns = flow("10.200.0.1", 53, { protocol: 17, redirected: true });
    bed.firewall.tracked.set(5, [dns, flow(web, 443, { redirected: true }), flow(web, 53)]);
    expect(await bed.networks.usage(5)).toEqual({
      address,
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
    await attached("93.184.216.34:22 www.example.org");
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
