import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { query } from "./testing/dns-client.js";
import { Harness } from "./testing/harness.js";

const at = "127.0.0.2";
const name = "many.example.org";
let harness: Harness;

beforeEach(async () => {
  harness = await Harness.start();
  harness.know(at, { allow: [name] });
});
afterEach(() => harness.close());

/** Texts that take so many bytes with their lengths. */
function textsOf(size: number): Buffer[] {
  const whole = Array.from({ length: Math.floor(size / 100) - 1 }, () => Buffer.alloc(99, 97));
  return [...whole, Buffer.alloc(size - whole.length * 100 - 1, 98)];
}

describe("an answer", () => {
  it("has the question as it was asked, and flags that say what it is", async () => {
    harness.upstream.give(name, ["192.0.2.1"]);
    const client = await harness.udp(at);
    const answer = await client.ask("mANy.Example.ORG", { id: 0xbeef });
    expect(answer.id).toBe(0xbeef);
    expect(answer.questions).toEqual([{ name: "mANy.Example.ORG", type: "A", class: "IN" }]);
    expect(answer.answers).toMatchObject([{ name: "mANy.Example.ORG", class: "IN" }]);
    expect(answer).toMatchObject({ flag_qr: true, flag_ra: true, flag_rd: true, flag_aa: false, flag_tc: false });
    expect(answer.additionals).toEqual([]);
  });

  it("has the case as asked when it is refused, too", async () => {
    const client = await harness.udp(at);
    expect((await client.ask("oTHer.example.org")).questions?.[0]?.name).toBe("oTHer.example.org");
  });

  it("has an OPT record where the query has one", async () => {
    harness.upstream.give(name, ["192.0.2.1"]);
    const client = await harness.udp(at);
    const answer = await client.ask(name, { edns: 4096, dnssecOk: true });
    expect(answer.additionals).toMatchObject([
      { type: "OPT", name: ".", udpPayloadSize: 1232, extendedRcode: 0, ednsVersion: 0, flag_do: true },
    ]);
    expect((await client.ask(name, { edns: 4096 })).additionals).toMatchObject([{ flag_do: false }]);
    expect((await client.ask("x.example", { edns: 4096 })).additionals).toMatchObject([{ type: "OPT" }]);
  });

  it("says that it knows no other version of EDNS", async () => {
    const client = await harness.udp(at);
    const answer = await client.ask(name, { edns: 1232, ednsVersion: 1 });
    expect(answer).toMatchObject({ code: 0, answers: [], additionals: [{ extendedRcode: 1, ednsVersion: 0 }] });
    expect(harness.upstream.asked).toEqual([]);
  });

  it.each([
    ["without EDNS", undefined, 512],
    ["with a size that is none", 1, 512],
    ["with the smallest size", 512, 512],
    ["with a size between", 540, 540],
    ["with the largest size of all", 65_535, 1232],
  ])("sends the client to TCP where it does not fit, %s", async (_, edns, limit) => {
    const asking = { type: "TXT", ...(edns === undefined ? {} : { edns }) };
    /** Makes the whole answer so long: header, question, the record's own 12 bytes, its texts, and OPT. */
    const answerOf = (size: number): void => {
      const data = textsOf(size - 12 - 22 - 12 - (edns === undefined ? 0 : 11));
      harness.upstream.on(name, "TXT", { answers: [{ type: "TXT", name, ttl: 60, data }], truncated: true });
    };
    const client = await harness.udp(at);
    answerOf(limit);
    const whole = await client.ask(name, asking);
    expect([whole.bytes.length, whole.flag_tc]).toEqual([limit, false]);
    answerOf(limit + 1);
    harness.now = 61_000;
    const cut = await client.ask(name, asking);
    expect(cut).toMatchObject({ flag_tc: true, answers: [], code: 0 });
    expect(cut.additionals).toHaveLength(edns === undefined ? 0 : 1);
    const tcp = harness.tcp(at);
    tcp.send(query(name, asking));
    await expect.poll(() => tcp.answers.length).toBe(1);
    expect(tcp.answers[0]?.bytes.length).toBe(limit + 1);
    expect(tcp.answers[0]?.flag_tc).toBe(false);
  });
});
