import { beforeEach, describe, expect, it } from "vitest";
import { broken, gone } from "./testing/fake-firewall.js";
import { address, elementsOf, flow, learnedOf, NetworkBed, settings, web } from "./testing/network-bed.js";

let bed: NetworkBed;

beforeEach(() => void (bed = new NetworkBed()));

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
      address6: null,
      secrets: [],
      ca: null,
      address,
      spec: { allow: ["example.org"], deny: [] },
    });
    expect(bed.networks.addressesOf(5)).toEqual({ address, address6: null });
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
    await bed.attached(from);
    await bed.learn("www.example.org", web).catch(() => undefined);
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
    await bed.attached("");
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
    await bed.attached("", { net_limits });
    await bed.networks.change(5, settings("none", { net_limits }));
    expect(bed.steps.taken.some((step) => step.startsWith("shape"))).toBe(false);
    await bed.networks.change(5, settings("none"));
    expect(bed.steps.taken.at(-1)).toBe("shape 5 0 0");
    expect(bed.firewall.sets.state()).toEqual(elementsOf("none"));
  });

  it("cuts exactly the connections that are not allowed any more", async () => {
    await bed.attached("");
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
    await bed.attached("example.org");
    const [ping, inside] = [flow(web, 0x0800, { protocol: 1 }), flow("10.1.2.3", 0x0800, { protocol: 1 })];
    bed.firewall.tracked.set(5, [ping, inside]);
    await bed.networks.change(5, settings(""));
    expect(bed.firewall.tracked.get(5)).toEqual([ping]);
    await bed.networks.change(5, settings("", { deny_net: ["example.net"] }));
    expect(bed.firewall.tracked.get(5)).toEqual([]);
  });

  it("keeps connections to resolved names while a name allows them", async () => {
    await bed.attached("www.example.org other.example.org");
    await bed.learn("www.example.org", web);
    await bed.learn("other.example.org", "93.184.216.99");
    bed.firewall.tracked.set(5, [flow(web, 22), flow("93.184.216.99", 22), flow("93.184.216.77", 22)]);
    await bed.networks.change(5, settings("www.example.org"));
    expect(bed.firewall.tracked.get(5)).toEqual([flow(web, 22)]);
    await bed.networks.change(5, settings("www.example.org", { deny_net: ["93.184.216.0/24"] }));
    expect(bed.firewall.tracked.get(5)).toEqual([]);
  });

  it("cuts what went through the plane when nothing at all is allowed", async () => {
    await bed.attached("");
    bed.firewall.tracked.set(5, [flow(web, 80, { redirected: true })]);
    await bed.networks.change(5, settings("none"));
    expect(bed.firewall.tracked.get(5)).toEqual([]);
  });

  it.each(["update", "set", "flows", "cut", "shape"])(
    "that fails at %s leaves the old state everywhere",
    async (step) => {
      await bed.attached("www.example.org", { net_limits: { down_kbit: 80 } });
      await bed.learn("www.example.org", web);
      const before = bed.firewall.sets.state();
      bed.steps.failing.set(step, broken);
      const wider = settings("*.example.org other.example 1.2.3.4", { net_limits: { down_kbit: 160 } });
      await expect(bed.networks.change(5, wider)).rejects.toBe(broken);
      expect(bed.firewall.sets.state()).toEqual(before);
      expect(bed.plane.clients.get(address)?.spec.allow).toEqual(["www.example.org"]);
      await expect(bed.learn("other.example", web)).rejects.toMatchObject({ code: "invalid_request" });
      await bed.networks.change(5, settings("none"));
      expect(bed.firewall.sets.state()).toEqual(elementsOf("none"));
    },
  );

  it("that the kernel refused does not forget what names opened", async () => {
    await bed.attached("www.example.org");
    await bed.learn("www.example.org", web);
    bed.steps.failing.set("update", broken);
    await expect(bed.networks.change(5, settings("other.example"))).rejects.toBe(broken);
    expect(bed.firewall.sets.state()).toContain(learnedOf(web));
    await bed.networks.change(5, settings("other.example"));
    expect(bed.firewall.sets.state()).not.toContain(learnedOf(web));
  });

  it("copes with what the kernel dropped by itself", async () => {
    await bed.attached("www.example.org www.example.net");
    await bed.learn("www.example.org", web, "93.184.216.35");
    await bed.learn("www.example.net", "93.184.216.36");
    bed.firewall.sets.update([{ set: "learned", key: "0ac800075db8d822" }], []);
    await bed.networks.change(5, settings("www.example.net"));
    expect(bed.firewall.sets.state()).toEqual(
      [...elementsOf("www.example.net"), learnedOf("93.184.216.36")].toSorted(),
    );
  });

  it("goes on after ENOENT only: another refusal is one", async () => {
    await bed.attached("www.example.org");
    await bed.learn("www.example.org", web, "93.184.216.35");
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
    await bed.attached("www.example.org");
    await bed.learn("www.example.org", web);
    bed.firewall.tracked.set(5, [flow(web, 80, { redirected: true }), flow(web, 22)]);
    bed.steps.taken.length = 0;
    await bed.networks.detach(5);
    expect(bed.steps.taken).toEqual(["update -6 +0", "remove 10.200.0.7", "flows 5", "cut 5 2"]);
    expect([bed.firewall.sets.state(), bed.firewall.tracked.get(5)]).toEqual([[], []]);
    expect(bed.networks.learned).toBe(0);
  });

  it("is idempotent", async () => {
    await bed.networks.detach(5);
    await bed.attached("");
    await bed.networks.detach(5);
    bed.steps.taken.length = 0;
    await bed.networks.detach(5);
    expect(bed.steps.taken).toEqual([]);
  });

  it.each(["update", "remove", "flows", "cut"])(
    "that failed at %s can be repeated, and then does the rest",
    async (step) => {
      await bed.attached("www.example.org");
      await bed.learn("www.example.org", web);
      bed.firewall.tracked.set(5, [flow(web, 22)]);
      bed.steps.failing.set(step, broken);
      await expect(bed.networks.detach(5)).rejects.toBe(broken);
      await bed.networks.detach(5);
      expect([bed.firewall.sets.state(), bed.plane.clients.size, bed.firewall.tracked.get(5)]).toEqual([[], 0, []]);
    },
  );

  it("removes what is there when the kernel dropped some of it by itself", async () => {
    await bed.attached("www.example.org");
    await bed.learn("www.example.org", web, "93.184.216.35");
    bed.firewall.sets.update([{ set: "learned", key: "0ac800075db8d822" }], []);
    await bed.networks.detach(5);
    expect(bed.firewall.sets.state()).toEqual([]);
  });
});
