import fc from "fast-check";
import { afterEach, beforeEach, expect, it } from "vitest";
import { addressesIn, framed, query } from "./testing/dns-client.js";
import { Harness } from "./testing/harness.js";

const hostile = "127.0.0.2";
const good = "127.0.0.3";
const unhandled: unknown[] = [];
const note = (reason: unknown): void => void unhandled.push(reason);
let harness: Harness;

beforeEach(async () => {
  process.on("unhandledRejection", note);
  harness = await Harness.start();
  harness.know(hostile, { allow: ["a.example.org"] });
  harness.know(good, { allow: ["a.example.org"] });
  harness.upstream.give("a.example.org", ["192.0.2.1"]);
});
afterEach(async () => {
  await harness.close();
  process.off("unhandledRejection", note);
  expect(unhandled).toEqual([]);
  expect(harness.reported).toEqual([]);
});

const anyBytes = fc.uint8Array({ maxLength: 1400 }).map((bytes) => Buffer.from(bytes));
/** a good query with some bytes changed and its end cut or grown, so that it fails late */
const nearly = fc
  .record({
    base: fc.constantFrom(
      query("a.example.org"),
      query("a.example.org", { edns: 1232 }),
      query("a.example.org", { type: "TXT", edns: 512 }),
    ),
    changes: fc.array(fc.record({ at: fc.nat(60), byte: fc.nat(255) }), { maxLength: 6 }),
    cut: fc.nat(60),
    tail: fc.uint8Array({ maxLength: 30 }),
  })
  .map(({ base, changes, cut, tail }) => {
    const bytes = Buffer.from(base);
    for (const { at, byte } of changes) if (at < bytes.length) bytes[at] = byte;
    return Buffer.concat([bytes.subarray(0, Math.max(12, bytes.length - (cut > 40 ? cut - 40 : 0))), tail]);
  });

it("any datagram leaves the server able to answer others", async () => {
  const [bad, client] = [await harness.udp(hostile), await harness.udp(good)];
  const send = fc.asyncProperty(fc.oneof(anyBytes, nearly), async (bytes) => {
    harness.now += 1_000;
    await bad.send(bytes);
  });
  for (let round = 0; round < 8; round += 1) {
    await fc.assert(send, { numRuns: 100 });
    expect(addressesIn(await client.ask("a.example.org"))).toEqual(["192.0.2.1"]);
  }
});

it("any stream of bytes leaves the server able to answer others", async () => {
  const client = await harness.udp(good);
  const part = fc.oneof(anyBytes, nearly.map(framed), nearly);
  const stream = fc.asyncProperty(fc.array(part, { maxLength: 5 }), fc.boolean(), async (parts, rude) => {
    harness.now += 1_000;
    const bad = harness.tcp(hostile);
    for (const bytes of parts) bad.socket.write(bytes);
    if (rude) bad.socket.resetAndDestroy();
    else bad.socket.end();
    await expect.poll(() => bad.closed, { interval: 2 }).toBe(true);
  });
  for (let round = 0; round < 3; round += 1) {
    await fc.assert(stream, { numRuns: 30 });
    expect(addressesIn(await client.ask("a.example.org"))).toEqual(["192.0.2.1"]);
  }
}, 30_000);
