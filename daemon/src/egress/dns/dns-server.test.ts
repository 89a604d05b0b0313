import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { clientLimits } from "./client-states.js";
import { addressesIn, query } from "./testing/dns-client.js";
import { Harness } from "./testing/harness.js";

const code = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5 };
const at = "127.0.0.2";
const soon = 150;
let harness: Harness;

beforeEach(async () => {
  harness = await Harness.start();
  harness.know(at, { allow: ["a.example.org", "b.example.org", "*.wild.example.org"] });
  harness.upstream.give("a.example.org", ["192.0.2.1", "192.0.2.2"]);
  harness.upstream.give("b.example.org", ["192.0.2.3"]);
});
afterEach(() => harness.close());

describe("who asks", () => {
  it("listens at one port for both protocols", () => expect(harness.tcpPort).toBe(harness.udpPort));

  it("gets no answer when it is not known, by UDP nor by TCP, and nothing is asked for it", async () => {
    const stranger = await harness.udp("127.0.0.3");
    await stranger.send(query("a.example.org"));
    const tcp = harness.tcp("127.0.0.3");
    tcp.send(query("a.example.org"));
    expect(await stranger.next(soon)).toBeNull();
    await expect.poll(() => tcp.closed).toBe(true);
    expect(tcp.answers).toEqual([]);
    expect(harness.upstream.asked).toEqual([]);
    expect(harness.audited).toEqual([]);
  });

  it("is answered by its own policy", async () => {
    harness.know("127.0.0.3", { allow: ["b.example.org"] });
    const [one, other] = [await harness.udp(at), await harness.udp("127.0.0.3")];
    expect(addressesIn(await one.ask("a.example.org"))).toEqual(["192.0.2.1", "192.0.2.2"]);
    expect((await other.ask("a.example.org")).code).toBe(code.refused);
    expect(addressesIn(await other.ask("b.example.org"))).toEqual(["192.0.2.3"]);
  });

  it("gets no answer at all when its policy is silent, which is audited", async () => {
    harness.know(at, { silent: true, allow: ["a.example.org"] });
    const client = await harness.udp(at);
    await client.send(query("a.example.org"));
    await client.send(query("a.example.org").subarray(0, 20));
    expect(await client.next(soon)).toBeNull();
    expect(harness.upstream.asked).toEqual([]);
    expect(harness.audited).toMatchObject([{ name: "a.example.org", allowed: false }]);
  });

  it("gets no answer when it is gone before there is one, nor does the sandbox that has its address now", async () => {
    harness.upstream.on("a.example.org", "A", { delayMs: 100, answers: [] });
    const client = await harness.udp(at);
    await client.send(query("a.example.org"));
    await expect.poll(() => harness.upstream.asked.length).toBe(1);
    harness.know(at, { allow: ["a.example.org"] }, "the-next");
    expect(await client.next(300)).toBeNull();
    expect(harness.learned).toEqual([]);
  });

  it("gets no answer when it is gone while its addresses are learned", async () => {
    harness.onLearn = () => {
      harness.know(at, { allow: ["a.example.org"] }, "the-next");
      return Promise.resolve();
    };
    const client = await harness.udp(at);
    await client.send(query("a.example.org"));
    expect(await client.next(soon)).toBeNull();
    expect(harness.learned).toHaveLength(1);
  });

  it.each([
    ["refused", {}, code.refused],
    ["not answered", { silent: true }, null],
  ])("is %s when its policy has changed meanwhile", async (_, rules, expected) => {
    harness.upstream.on("a.example.org", "A", { ...harness.upstream.scripts.get("A a.example.org"), delayMs: 100 });
    const client = await harness.udp(at);
    await client.send(query("a.example.org"));
    await expect.poll(() => harness.upstream.asked.length).toBe(1);
    harness.know(at, rules);
    expect((await client.next(300))?.code ?? null).toBe(expected);
    expect(harness.learned).toEqual([]);
    expect(harness.audited).toMatchObject([{ allowed: false, rule: "not allowed" }]);
  });
});

describe("what is asked", () => {
  it("is refused before anything goes upstream where the name is not allowed", async () => {
    const client = await harness.udp(at);
    for (const type of ["A", "AAAA", "TXT", "MX", "UNKNOWN_65", "UNKNOWN_99", "ANY"]) {
      const answer = await client.ask("secret.evil.example", { type });
      expect([answer.code, answer.answers]).toEqual([code.refused, []]);
    }
    expect(harness.upstream.asked).toEqual([]);
    expect(harness.learned).toEqual([]);
    expect(harness.server.counters(at)).toEqual({ allowed: 0, refused: 7, limited: 0 });
    expect(harness.audited[0]).toEqual({
      sandbox: `at-${at}`,
      kind: "dns",
      name: "secret.evil.example",
      address: null,
      port: null,
      protocol: "udp",
      allowed: false,
      rule: "not allowed",
    });
  });

  it.each(["ANY", "AXFR", "IXFR"])("is refused for type %s", async (type) => {
    const client = await harness.udp(at);
    expect((await client.ask("a.example.org", { type })).code).toBe(code.refused);
    expect(harness.upstream.asked).toEqual([]);
    expect(harness.audited).toMatchObject([{ allowed: false, rule: `DNS type ${type}` }]);
  });

  it.each(["NULL", "DNSKEY", "UNKNOWN_253", "UNKNOWN_65280"])("is not implemented for type %s", async (type) => {
    const client = await harness.udp(at);
    expect((await client.ask("a.example.org", { type })).code).toBe(code.notImp);
    expect(harness.upstream.asked).toEqual([]);
  });

  it.each(["AAAA", "UNKNOWN_64", "UNKNOWN_65"])("has no records of type %s, without asking upstream", async (type) => {
    const client = await harness.udp(at);
    const answer = await client.ask("a.example.org", { type });
    expect([answer.code, answer.answers]).toEqual([code.noError, []]);
    expect(harness.upstream.asked).toEqual([]);
    expect(harness.server.counters(at).allowed).toBe(1);
  });

  it("may be of other types, whose answers grant nothing", async () => {
    const mx = {
      type: "MX",
      name: "a.example.org",
      ttl: 60,
      data: { preference: 1, exchange: "mail.evil.example" },
    } as const;
    harness.upstream.on("a.example.org", "MX", { answers: [mx] });
    const client = await harness.udp(at);
    expect((await client.ask("a.example.org", { type: "MX" })).answers).toMatchObject([mx]);
    expect((await client.ask("mail.evil.example")).code).toBe(code.refused);
    expect(harness.learned).toEqual([]);
  });

  it("is answered with the error that upstream has", async () => {
    harness.know(at, { allow: ["missing.example.org", "empty.example.org", "broken.example.org"] });
    harness.upstream.on("empty.example.org", "A", {});
    harness.upstream.on("broken.example.org", "A", { code: 2 });
    const client = await harness.udp(at);
    expect((await client.ask("missing.example.org")).code).toBe(code.nxDomain);
    expect(await client.ask("empty.example.org")).toMatchObject({ code: code.noError, answers: [] });
    expect((await client.ask("broken.example.org")).code).toBe(code.servFail);
    expect((await client.ask("missing.example.org", { type: "TXT" })).code).toBe(code.nxDomain);
    expect(harness.learned).toEqual([]);
  });

  it("makes no sense: answered so, and counted, without the audit", async () => {
    const client = await harness.udp(at);
    await client.send(query("a.example.org", { class: "CH" }));
    expect((await client.next())?.code).toBe(code.formErr);
    await client.send(Buffer.from("00012800000100000000000000000a", "hex"));
    expect((await client.next())?.code).toBe(code.notImp);
    expect(harness.server.counters(at).refused).toBe(2);
    expect(harness.audited).toEqual([]);
  });

  it("is refused where the name cannot come from the wildcard that allows it", async () => {
    const client = await harness.udp(at);
    harness.upstream.give("cdn.wild.example.org", ["192.0.2.9"]);
    expect((await client.ask("cdn.wild.example.org")).code).toBe(code.noError);
    const payload = "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dz.wild.example.org";
    expect((await client.ask(payload)).code).toBe(code.refused);
    expect((await client.ask(payload, { type: "TXT" })).code).toBe(code.refused);
    expect(harness.upstream.count(payload)).toBe(0);
    expect(harness.audited.at(-1)).toMatchObject({ allowed: false, rule: "tunnel guard: encoded label" });
    harness.know(at, { allow: [payload] }, "exact");
    harness.upstream.give(payload, ["192.0.2.9"]);
    expect((await client.ask(payload)).code).toBe(code.noError);
  });

  it("is refused where there are too many new names below a wildcard, for each sandbox", async () => {
    harness.know("127.0.0.3", { allow: ["*.wild.example.org"] });
    const [client, other] = [await harness.udp(at), await harness.udp("127.0.0.3")];
    const codes: number[] = [];
    for (let i = 0; i < 62; i += 1) {
      harness.now += 100;
      codes.push((await client.ask(`n${i}.wild.example.org`, { type: "AAAA" })).code);
    }
    expect(codes).toEqual([...Array<number>(60).fill(code.noError), code.refused, code.refused]);
    expect((await other.ask("n61.wild.example.org", { type: "AAAA" })).code).toBe(code.noError);
    harness.server.forget(at);
    expect((await client.ask("n61.wild.example.org", { type: "AAAA" })).code).toBe(code.noError);
  });
});

describe("what is answered", () => {
  it("may be connected to before the answer comes", async () => {
    const order: string[] = [];
    harness.onLearn = async () => {
      await delay(100);
      order.push("learned");
    };
    const client = await harness.udp(at);
    const answer = await client.ask("A.example.org");
    order.push("answered");
    expect(order).toEqual(["learned", "answered"]);
    expect(harness.learned).toEqual([
      { sandbox: `at-${at}`, name: "a.example.org", addresses: ["192.0.2.1", "192.0.2.2"], ttlS: 60 },
    ]);
    expect(answer.answers).toMatchObject([{ ttl: 60 }, { ttl: 60 }]);
    expect(harness.audited).toEqual([
      {
        sandbox: `at-${at}`,
        kind: "dns",
        name: "a.example.org",
        address: null,
        port: null,
        protocol: "udp",
        allowed: true,
        rule: "allow a.example.org:443",
      },
    ]);
  });

  it("is a failure where the kernel could not be told", async () => {
    harness.onLearn = () => Promise.reject(new Error("the set is full"));
    const client = await harness.udp(at);
    expect(await client.ask("a.example.org")).toMatchObject({ code: code.servFail, answers: [] });
    expect(harness.audited).toMatchObject([{ allowed: false, rule: "failure to open the way to its addresses" }]);
    expect(harness.reported).toMatchObject([{ cause: { message: "the set is full" } }]);
  });

  it("is a failure where the kernel takes too long", async () => {
    harness.onLearn = () => new Promise(() => undefined);
    const client = await harness.udp(at);
    await client.send(query("a.example.org"));
    expect((await client.next(7000))?.code).toBe(code.servFail);
  }, 10_000);

  it("has the TTL that remains, for whoever asks, and learns it for each", async () => {
    harness.know("127.0.0.3", { allow: ["a.example.org"] });
    const [one, other] = [await harness.udp(at), await harness.udp("127.0.0.3")];
    await one.ask("a.example.org");
    harness.now = 20_000;
    expect((await other.ask("a.example.org")).answers).toMatchObject([{ ttl: 40 }, { ttl: 40 }]);
    expect(harness.upstream.count("a.example.org")).toBe(1);
    expect(harness.learned).toMatchObject([{ ttlS: 60 }, { sandbox: "at-127.0.0.3", ttlS: 40 }]);
  });

  it("is quick where it is known", async () => {
    const client = await harness.udp(at);
    await client.ask("a.example.org");
    const times: number[] = [];
    for (let i = 0; i < 200; i += 1) {
      harness.now += 100;
      const begin = performance.now();
      await client.ask("a.example.org");
      times.push(performance.now() - begin);
    }
    // both ends and the kernel's loopback included; the server's part is a fraction
    expect(times.toSorted((a, b) => a - b)[50]).toBeLessThan(2);
  });
});

describe("too many queries", () => {
  it("wait for their turn, each in its order, since programs ask again after seconds only", async () => {
    const client = await harness.udp(at);
    for (let id = 0; id < 30; id += 1) await client.send(query("a.example.org", { id }));
    await expect.poll(() => client.received.length).toBe(20);
    harness.now = 500;
    await expect.poll(() => client.received.length).toBe(25);
    harness.now = 1_000;
    await expect.poll(() => client.received.length).toBe(30);
    expect(harness.server.counters(at)).toEqual({ allowed: 30, refused: 0, limited: 0 });
    const ids: number[] = [];
    while (client.received.length > 0) ids.push((await client.next())?.id ?? -1);
    expect(ids.slice(20)).toEqual(Array.from({ length: 10 }, (_, index) => 20 + index));
  });

  it("are answered as the policy is when their turn has come, and not where the sandbox is gone", async () => {
    const client = await harness.udp(at);
    const ask = async (count: number): Promise<void> => {
      for (let id = 0; id < count; id += 1) await client.send(query("a.example.org", { id }));
    };
    await ask(25);
    await expect.poll(() => client.received.length).toBe(20);
    harness.know(at, { allow: ["b.example.org"] });
    harness.now = 500;
    await expect.poll(() => harness.server.counters(at)).toEqual({ allowed: 20, refused: 5, limited: 0 });
    await ask(3);
    harness.clients.delete(at);
    harness.now = 1_000;
    await delay(200);
    expect(client.received.length).toBe(25);
    expect(harness.server.counters(at)).toEqual({ allowed: 20, refused: 5, limited: 0 });
  });

  it("are dropped where too many wait, counted, and audited once a second", async () => {
    harness.know("127.0.0.3", { allow: ["b.example.org"] });
    const [client, other] = [await harness.udp(at), await harness.udp("127.0.0.3")];
    const flood = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i += 1) await client.send(query("b.example.org", { id: i }));
    };
    await flood(50);
    await expect.poll(() => client.received.length).toBe(20);
    await expect.poll(() => harness.server.counters(at)).toEqual({ allowed: 20, refused: 0, limited: 10 });
    const limited = { name: null, allowed: false, rule: "limit of DNS queries" };
    expect(harness.audited.filter(({ name }) => name === null)).toMatchObject([limited]);
    harness.now = 999;
    await expect.poll(() => harness.server.counters(at)).toEqual({ allowed: 29, refused: 0, limited: 10 });
    await flood(20);
    await expect.poll(() => harness.server.counters(at)).toEqual({ allowed: 29, refused: 0, limited: 21 });
    expect(harness.audited.filter(({ name }) => name === null)).toHaveLength(1);
    harness.now = 1_000;
    await flood(3);
    await expect.poll(() => harness.server.counters(at).limited).toBeGreaterThanOrEqual(23);
    expect(harness.audited.filter(({ name }) => name === null)).toHaveLength(2);
    expect((await other.ask("b.example.org")).code).toBe(code.noError);
  });

  it("are a matter of the sandbox, not of its address", async () => {
    const client = await harness.udp(at);
    for (let i = 0; i < 50; i += 1) await client.send(query("b.example.org"));
    await expect.poll(() => client.received.length).toBe(20);
    await expect.poll(() => harness.server.counters(at).limited).toBe(10);
    harness.server.forget(at);
    expect(harness.server.counters(at)).toEqual({ allowed: 0, refused: 0, limited: 0 });
    while (client.received.length > 0) await client.next();
    await client.ask("b.example.org");
    expect(harness.server.counters(at).allowed).toBe(1);
    harness.know(at, { allow: ["b.example.org"] }, "the-next");
    await client.ask("b.example.org");
    expect(harness.server.counters(at)).toEqual({ allowed: 1, refused: 0, limited: 0 });
  });

  it("include those that make no sense", async () => {
    const client = await harness.udp(at);
    for (let i = 0; i < 50; i += 1) await client.send(Buffer.alloc(20, 1));
    await expect.poll(() => harness.server.counters(at)).toEqual({ allowed: 0, refused: 20, limited: 10 });
  });

  it("are those that wait for an answer, beyond a number", async () => {
    harness.upstream.on("a.example.org", "A", { silent: true });
    const client = await harness.udp(at);
    for (let i = 0; i < 40; i += 1) {
      harness.now += 100;
      await client.send(query("a.example.org"));
      await delay(1);
    }
    await expect.poll(() => harness.server.counters(at).limited).toBe(40 - clientLimits.pending);
  });
});
