import { mkdtempSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { Resolver, resolverLimits, type ResolverOptions } from "./resolver.js";
import { NameServer } from "./testing/name-server.js";

const folder = mkdtempSync(join(tmpdir(), "resolver-test-"));
const path = join(folder, "resolv.conf");
let server: NameServer;
let now = 0;

beforeEach(async () => {
  now = 0;
  server = await NameServer.start("127.0.0.1");
  writeFileSync(path, "nameserver 127.0.0.1\n");
});
afterEach(() => server.close());
afterAll(() => rmSync(folder, { recursive: true }));

function resolver(options: Partial<ResolverOptions> = {}): Resolver {
  return new Resolver({ path, port: server.port, now: () => now, ...options });
}

describe("what is answered", () => {
  it("holds the addresses of one family, with the smallest TTL, that of an alias included", async () => {
    server.give("a.example.org", ["192.0.2.1", "2001:db8::1"], 100);
    const one = { type: "A", name: "target.example.net", ttl: 50, data: "192.0.2.2" } as const;
    const alias = { type: "CNAME", name: "alias.example.org", ttl: 20, data: "target.example.net" } as const;
    server.on("alias.example.org", "A", { answers: [alias, one, { ...one, ttl: 70, data: "192.0.2.3" }] });
    const asked = resolver();
    expect(await asked.addresses("a.example.org", 4)).toEqual({ addresses: ["192.0.2.1"], ttlS: 100 });
    expect(await asked.addresses("a.example.org", 6)).toEqual({ addresses: ["2001:db8::1"], ttlS: 100 });
    const found = await asked.addresses("alias.example.org", 4);
    expect(found).toEqual({ addresses: ["192.0.2.2", "192.0.2.3"], ttlS: 20 });
  });

  it("is an error by its kind", async () => {
    server.on("empty.example.org", "A", { answers: [] });
    server.on("broken.example.org", "A", { code: 2 });
    server.on("refused.example.org", "A", { code: 5 });
    const asked = resolver();
    expect(await asked.addresses("empty.example.org", 4)).toEqual({ error: "NODATA" });
    expect(await asked.addresses("missing.example.org", 4)).toEqual({ error: "NXDOMAIN" });
    expect(await asked.addresses("broken.example.org", 4)).toEqual({ error: "SERVFAIL" });
    expect(await asked.addresses("refused.example.org", 4)).toEqual({ error: "SERVFAIL" });
  });

  it("comes by TCP where it does not fit, and holds no more addresses than are of use", async () => {
    const many = Array.from({ length: 200 }, (_, i) => `192.0.2.${i}`);
    server.give("many.example.org", many);
    const script = server.scripts.get("A many.example.org");
    server.on("many.example.org", "A", { ...script, truncated: true });
    const found = await resolver().addresses("many.example.org", 4);
    expect(found).toMatchObject({ addresses: many.slice(0, resolverLimits.addresses) });
    expect(server.asked.map(({ protocol }) => protocol)).toEqual(["udp", "tcp"]);
  });

  it("is not what comes with another id", async () => {
    server.give("a.example.org", ["192.0.2.1"]);
    const forged = [{ type: "A", name: "a.example.org", ttl: 60, data: "198.51.100.66" }] as const;
    server.on("a.example.org", "A", { ...server.scripts.get("A a.example.org"), forged });
    expect(await resolver().addresses("a.example.org", 4)).toMatchObject({ addresses: ["192.0.2.1"] });
  });

  it("is asked for from another port each time, even with others under way", async () => {
    const names = Array.from({ length: 20 }, (_, i) => `n${i}.example.org`);
    for (const name of names) server.on(name, "A", { delayMs: 30, code: 3 });
    const asked = resolver();
    await Promise.all(names.map((name) => asked.addresses(name, 4)));
    expect(new Set(server.asked.map(({ port }) => port)).size).toBe(20);
  });

  it("comes late or never as a failure, at the deadline", async () => {
    server.on("silent.example.org", "A", { silent: true });
    const begin = performance.now();
    const asked = resolver({ limits: { asking: 1, waiting: 10, deadlineMs: 150 } });
    const both = ["silent.example.org", "other.example.org"].map((name) => asked.addresses(name, 4));
    expect(await Promise.all(both)).toEqual([{ error: "SERVFAIL" }, { error: "SERVFAIL" }]);
    expect(performance.now() - begin).toBeLessThan(1000);
    server.give("after.example.org", ["192.0.2.1"]);
    expect(await asked.addresses("after.example.org", 4)).toMatchObject({ addresses: ["192.0.2.1"] });
  });

  it("is a failure at the deadline for a question that still waits for its turn", async () => {
    const asked = resolver({ limits: { asking: 0, waiting: 10, deadlineMs: 50 } });
    expect(await asked.addresses("a.example.org", 4)).toEqual({ error: "SERVFAIL" });
    expect(server.asked).toEqual([]);
  });
});

describe("records of other types", () => {
  const name = "r.example.org";
  const ttl = 1000;
  const bytes = Buffer.from([0, 0x41, 0xff, 0xc3, 0xa9]);

  it.each([
    ["MX", { preference: 10, exchange: "mail.example.org" }],
    ["MX", { preference: 0, exchange: "." }],
    ["TXT", [bytes, Buffer.from("second")]],
    ["SRV", { priority: 1, weight: 2, port: 443, target: "host.example.org" }],
    ["NS", "ns.example.org"],
    ["PTR", "host.example.org"],
    ["CNAME", "target.example.net"],
    [
      "SOA",
      { mname: "ns.example.org", rname: "root.example.org", serial: 1, refresh: 2, retry: 3, expire: 4, minimum: 5 },
    ],
    ["CAA", { flags: 128, tag: "issue", value: "ca.example.org" }],
    ["CAA", { flags: 0, tag: "iodef", value: "mailto:security@example.org" }],
  ] as const)("%s comes through as %j", async (type, data) => {
    server.on(name, type, { answers: [{ type, name, ttl, data } as never] });
    const found = await resolver().records(name, type);
    expect(found).toEqual({ records: [{ type, data }], ttlS: resolverLimits.unknownTtlS });
  });

  it("are a failure where a name in them cannot be said as text", async () => {
    server.on(name, "NS", { answers: [{ type: "NS", name, ttl, data: "a b.example.org" }] });
    expect(await resolver().records(name, "NS")).toEqual({ error: "SERVFAIL" });
  });

  it("are a failure where they are too many or too large", async () => {
    const text = Buffer.alloc(250, 97);
    const texts = (count: number, data: Buffer[]): { type: "TXT"; name: string; ttl: number; data: Buffer[] }[] =>
      Array.from({ length: count }, () => ({ type: "TXT", name, ttl, data }));
    server.on("many.example.org", "TXT", { answers: texts(101, [Buffer.from("a")]), truncated: true });
    server.on("large.example.org", "TXT", { answers: texts(60, [text, text]), truncated: true });
    server.on("fits.example.org", "TXT", { answers: texts(20, [text, text]), truncated: true });
    const asked = resolver();
    expect(await asked.records("many.example.org", "TXT")).toEqual({ error: "SERVFAIL" });
    expect(await asked.records("large.example.org", "TXT")).toEqual({ error: "SERVFAIL" });
    expect(await asked.records("fits.example.org", "TXT")).toMatchObject({ ttlS: 60 });
  });
});

describe("the cache", () => {
  it.each([
    [1, 5],
    [5, 5],
    [300, 300],
    [86_400, 300],
  ])("keeps a TTL of %i s for %i s, counts it down, and then asks again", async (ttl, kept) => {
    server.give("a.example.org", ["192.0.2.1"], ttl);
    const asked = resolver();
    expect(await asked.addresses("a.example.org", 4)).toMatchObject({ ttlS: kept });
    now = 2_000;
    expect(await asked.addresses("a.example.org", 4)).toMatchObject({ ttlS: kept - 2 });
    now = kept * 1000 - 1;
    expect(await asked.addresses("a.example.org", 4)).toMatchObject({ ttlS: 1 });
    expect(server.count("a.example.org")).toBe(1);
    now = kept * 1000;
    expect(await asked.addresses("a.example.org", 4)).toMatchObject({ ttlS: kept });
    expect(server.count("a.example.org")).toBe(2); // c-ares, too, keeps nothing
  });

  it("keeps failures for a while", async () => {
    server.on("broken.example.org", "A", { code: 2 });
    const asked = resolver();
    const counts: number[] = [];
    for (now of [0, 4_999, 5_000, 14_999, 15_000]) {
      await asked.addresses("missing.example.org", 4);
      counts.push(server.count("missing.example.org"));
    }
    expect(counts).toEqual([1, 1, 1, 1, 2]);
    await asked.addresses("broken.example.org", 4);
    const tries = server.count("broken.example.org");
    now += 4_999;
    await asked.addresses("broken.example.org", 4);
    expect(server.count("broken.example.org")).toBe(tries);
    now += 1;
    await asked.addresses("broken.example.org", 4);
    expect(server.count("broken.example.org")).toBeGreaterThan(tries);
  });

  it("asks once for all that ask the same at the same time", async () => {
    server.give("a.example.org", ["192.0.2.1"]);
    server.on("a.example.org", "A", { ...server.scripts.get("A a.example.org"), delayMs: 30 });
    const asked = resolver();
    const all = await Promise.all(Array.from({ length: 50 }, () => asked.addresses("a.example.org", 4)));
    expect(new Set(all.map((one) => JSON.stringify(one))).size).toBe(1);
    expect(server.count("a.example.org")).toBe(1);
  });

  it("is bounded", async () => {
    for (const name of ["a", "b", "c"]) server.give(`${name}.example.org`, ["192.0.2.1"]);
    const asked = resolver({ cache: { entries: 2, bytes: 1_000_000 } });
    for (const name of ["a", "b", "c", "a"]) await asked.addresses(`${name}.example.org`, 4);
    expect(server.count("a.example.org")).toBe(2);
  });

  it("asks so many questions at once, keeps so many waiting, and fails the others without keeping that", async () => {
    const names = Array.from({ length: 10 }, (_, i) => `n${i}.example.org`);
    for (const name of names) {
      server.give(name, ["192.0.2.1"]);
      server.on(name, "A", { ...server.scripts.get(`A ${name}`), delayMs: 100 });
    }
    const asked = resolver({ limits: { asking: 2, waiting: 3, deadlineMs: 2000 } });
    const all = Promise.all(names.map((name) => asked.addresses(name, 4)));
    await expect.poll(() => server.asked.length).toBe(2);
    const outcomes = (await all).map((one) => ("error" in one ? one.error : "found"));
    expect(outcomes).toEqual([...Array<string>(5).fill("found"), ...Array<string>(5).fill("SERVFAIL")]);
    expect(await asked.addresses("n9.example.org", 4)).toMatchObject({ addresses: ["192.0.2.1"] });
  });
});

describe("the host's servers", () => {
  it("are followed as they change, and nothing that others said is kept", async () => {
    const other = await NameServer.start("127.0.0.9", server.port);
    try {
      server.give("a.example.org", ["192.0.2.1"]);
      other.give("a.example.org", ["192.0.2.2"]);
      const asked = resolver();
      expect(await asked.addresses("a.example.org", 4)).toMatchObject({ addresses: ["192.0.2.1"] });
      writeFileSync(path, "nameserver 127.0.0.9\n");
      now = 1_000;
      await asked.addresses("b.example.org", 4);
      expect(await asked.addresses("a.example.org", 4)).toMatchObject({ addresses: ["192.0.2.2"] });
    } finally {
      await other.close();
    }
  });

  it("are followed by names in the cache, too", async () => {
    server.give("a.example.org", ["192.0.2.1"]);
    const asked = resolver();
    await asked.addresses("a.example.org", 4);
    unlinkSync(path);
    now = 1_000;
    await asked.addresses("a.example.org", 4);
    await expect.poll(() => asked.addresses("a.example.org", 4)).toEqual({ error: "SERVFAIL" });
  });

  it("do not put late answers into the cache of the next ones", async () => {
    const other = await NameServer.start("127.0.0.9", server.port);
    try {
      server.give("a.example.org", ["192.0.2.1"]);
      server.on("a.example.org", "A", { ...server.scripts.get("A a.example.org"), delayMs: 200 });
      other.give("a.example.org", ["192.0.2.2"]);
      const asked = resolver();
      const late = asked.addresses("a.example.org", 4);
      await expect.poll(() => server.asked.length).toBe(1);
      writeFileSync(path, "nameserver 127.0.0.9\n");
      now = 1_000;
      expect(await asked.addresses("a.example.org", 4)).toMatchObject({ addresses: ["192.0.2.2"] });
      expect(await late).toMatchObject({ addresses: ["192.0.2.1"] });
      expect(await asked.addresses("a.example.org", 4)).toMatchObject({ addresses: ["192.0.2.2"] });
    } finally {
      await other.close();
    }
  });

  it("may be missing, which fails everything until they are back", async () => {
    server.give("a.example.org", ["192.0.2.1"]);
    unlinkSync(path);
    const asked = resolver();
    expect(await asked.addresses("a.example.org", 4)).toEqual({ error: "SERVFAIL" });
    writeFileSync(path, "search example.org\n");
    now = 1_000;
    expect(await asked.addresses("a.example.org", 4)).toEqual({ error: "SERVFAIL" });
    writeFileSync(path, "nameserver 127.0.0.1\n");
    now = 2_000;
    expect(await asked.addresses("a.example.org", 4)).toMatchObject({ addresses: ["192.0.2.1"] });
  });

  it("are asked in turn when one does not answer", async () => {
    server.give("a.example.org", ["192.0.2.1"]);
    writeFileSync(path, "nameserver 127.0.0.77\nnameserver 127.0.0.1\n");
    expect(await resolver().addresses("a.example.org", 4)).toMatchObject({ addresses: ["192.0.2.1"] });
  });
});
