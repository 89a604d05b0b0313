import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { addressesIn, framed, query } from "./testing/dns-client.js";
import { Harness } from "./testing/harness.js";

const at = "127.0.0.2";
const other = "127.0.0.3";
let harness: Harness;

beforeEach(async () => {
  harness = await Harness.start();
  harness.know(at, { allow: ["a.example.org", "slow.example.org", "huge.example.org"] });
  harness.know(other, { allow: ["a.example.org"] });
  harness.upstream.give("a.example.org", ["192.0.2.1"]);
});
afterEach(() => harness.close());

describe("a connection", () => {
  it("takes a query byte by byte", async () => {
    const client = harness.tcp(at);
    client.socket.setNoDelay(true);
    for (const byte of framed(query("a.example.org"))) {
      client.socket.write(Buffer.from([byte]));
      await delay(1);
    }
    await expect.poll(() => client.answers.map(addressesIn)).toEqual([["192.0.2.1"]]);
    expect(harness.audited).toMatchObject([{ protocol: "tcp", allowed: true }]);
  });

  it("takes several queries in one segment, and answers each when it can", async () => {
    harness.upstream.on("slow.example.org", "A", { delayMs: 100, code: 3 });
    const client = harness.tcp(at);
    const queries = [
      query("slow.example.org", { id: 1 }),
      query("a.example.org", { id: 2 }),
      query("x.example", { id: 3 }),
    ];
    client.socket.write(Buffer.concat(queries.map(framed)));
    await expect.poll(() => client.answers.length).toBe(3);
    expect(client.answers.map(({ id }) => id).toSorted()).toEqual([1, 2, 3]);
    expect(client.answers.at(-1)?.id).toBe(1);
    client.send(query("a.example.org", { id: 4 }));
    await expect.poll(() => client.answers.at(-1)?.id).toBe(4);
  });

  it("answers what was asked before the client closed its side, and closes then", async () => {
    harness.upstream.on("slow.example.org", "A", { delayMs: 50, code: 3 });
    const client = harness.tcp(at);
    client.socket.end(framed(query("slow.example.org")));
    await expect.poll(() => client.closed).toBe(true);
    expect(client.answers).toMatchObject([{ code: 3 }]);
  });

  it("is closed when it announces a message that no query is as large as", async () => {
    const client = harness.tcp(at);
    client.socket.write(Buffer.from([0xff, 0xff]));
    await expect.poll(() => client.closed).toBe(true);
  });

  it("says of what makes no sense that it does not, and goes on", async () => {
    const client = harness.tcp(at);
    client.send(Buffer.from("0007010000010000000000000000", "hex"));
    client.send(Buffer.alloc(0));
    client.send(query("a.example.org"));
    await expect.poll(() => client.answers.length).toBe(2);
    expect(client.answers.map(({ code }) => code).toSorted()).toEqual([0, 1]);
  });

  it("asks no more at once than it may, and then the others", async () => {
    harness.upstream.on("slow.example.org", "A", { delayMs: 200, code: 3 });
    for (let i = 0; i < 12; i += 1) harness.upstream.on(`n${i}.example.org`, "A", { delayMs: 200, code: 3 });
    harness.know(at, { allow: Array.from({ length: 12 }, (_, i) => `n${i}.example.org`) });
    const client = harness.tcp(at);
    client.socket.write(Buffer.concat(Array.from({ length: 12 }, (_, i) => framed(query(`n${i}.example.org`)))));
    await expect.poll(() => harness.upstream.asked.length).toBe(8);
    await delay(50);
    expect(harness.upstream.asked.length).toBe(8);
    await expect.poll(() => client.answers.length).toBe(12);
  });

  it("is limited as UDP is, in the same count", async () => {
    const client = harness.tcp(at);
    for (let i = 0; i < 30; i += 1) client.send(query("a.example.org"));
    await expect.poll(() => client.answers.length).toBe(20);
    await delay(200);
    // what waits there is not read
    expect(harness.server.counters(at)).toEqual({ allowed: 20, refused: 0, limited: 0 });
    harness.now = 1_000;
    await expect.poll(() => client.answers.length, { timeout: 5_000 }).toBe(30);
  });

  it("is closed after five seconds without a whole query, however many bytes there are", async () => {
    const [quiet, slow] = [harness.tcp(at), harness.tcp(at)];
    const begin = performance.now();
    const drip = setInterval(() => slow.socket.write(Buffer.from([0])), 500);
    slow.socket.on("close", () => clearInterval(drip));
    slow.socket.write(Buffer.from([1]));
    await expect.poll(() => quiet.closed && slow.closed, { timeout: 8000 }).toBe(true);
    expect(performance.now() - begin).toBeGreaterThan(4500);
  }, 10_000);

  it("ends where answers are not read", async () => {
    const text = Array.from({ length: 60 }, () => Buffer.alloc(250, 97));
    const answers = [{ type: "TXT", name: "huge.example.org", ttl: 60, data: text }] as const;
    harness.upstream.on("huge.example.org", "TXT", { answers, truncated: true });
    const client = harness.tcp(at);
    client.socket.pause();
    client.socket.on("data", () => undefined);
    client.socket.pause();
    for (let i = 0; i < 2000 && !client.closed; i += 1) {
      harness.now += 100;
      client.send(query("huge.example.org", { type: "TXT" }));
      await delay(1);
    }
    client.socket.resume();
    await expect.poll(() => client.closed).toBe(true);
  }, 20_000);
});

describe("connections", () => {
  it("are limited for each sandbox, and given back", async () => {
    const clients = Array.from({ length: 4 }, () => harness.tcp(at));
    for (const client of clients) client.send(query("a.example.org"));
    await expect.poll(() => clients.map(({ answers }) => answers.length)).toEqual([1, 1, 1, 1]);
    const fifth = harness.tcp(at);
    await expect.poll(() => fifth.closed).toBe(true);
    const neighbour = harness.tcp(other);
    neighbour.send(query("a.example.org"));
    await expect.poll(() => neighbour.answers.length).toBe(1);
    clients[0]?.socket.destroy();
    await delay(50);
    const next = harness.tcp(at);
    next.send(query("a.example.org"));
    await expect.poll(() => next.answers.length).toBe(1);
  });

  it("are limited for all sandboxes together", async () => {
    await harness.close();
    harness = await Harness.start({ maxConnections: 2 });
    for (const address of [at, other]) harness.know(address, { allow: [] });
    const clients = [harness.tcp(at), harness.tcp(at)];
    for (const client of clients) client.send(query("a.example.org"));
    await expect.poll(() => clients.map(({ answers }) => answers.length)).toEqual([1, 1]);
    const third = harness.tcp(other);
    await expect.poll(() => third.closed).toBe(true);
  });

  it("end with the sandbox", async () => {
    const client = harness.tcp(at);
    client.send(query("a.example.org"));
    await expect.poll(() => client.answers.length).toBe(1);
    harness.server.forget(at);
    await expect.poll(() => client.closed).toBe(true);
  });

  it("are of no use to the sandbox that has the address next", async () => {
    const client = harness.tcp(at);
    client.send(query("a.example.org"));
    await expect.poll(() => client.answers.length).toBe(1);
    harness.know(at, { allow: ["a.example.org"] }, "the-next");
    client.send(query("a.example.org"));
    await expect.poll(() => client.closed).toBe(true);
    expect(client.answers).toHaveLength(1);
    expect(harness.audited.map(({ sandbox }) => sandbox)).toEqual([`at-${at}`]);
  });
});
