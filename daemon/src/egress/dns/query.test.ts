import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { maxQuerySize, parseQuery } from "./query.js";
import { query } from "./testing/dns-client.js";

const formErr = 1;
const notImp = 4;

/** A query with its name's bytes as given, so that it can hold what no text can. */
function raw(name: readonly number[], { type = 1, classNumber = 1 } = {}): Buffer {
  const header = Buffer.from([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([header, Buffer.from(name), Buffer.from([0, type, 0, classNumber])]);
}

function label(text: string): number[] {
  return [text.length, ...Buffer.from(text, "latin1")];
}

/** A query with other counts in its header. */
function counting(message: Buffer, at: number, count: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(count, at);
  return copy;
}

function codeOf(message: Buffer): number | string {
  const parsed = parseQuery(message);
  if (parsed === null) return "nothing";
  return Buffer.isBuffer(parsed) ? parsed.readUInt16BE(2) & 0xf : "query";
}

const address = Buffer.from("0000010001000000000004c0000201", "hex"); // of the root
const good = query("example.org", { edns: 1232 });

describe("parseQuery", () => {
  it("reads a query", () => {
    const parsed = parseQuery(query("WwW.eXample.org", { type: "AAAA", id: 0xbeef, edns: 4096, dnssecOk: true }));
    expect(parsed).toEqual({
      id: 0xbeef,
      flags: 0x0100,
      name: "www.example.org",
      type: 28,
      question: Buffer.from([...label("WwW"), ...label("eXample"), ...label("org"), 0, 0, 28, 0, 1]),
      edns: { version: 0, udpSize: 4096, dnssecOk: true },
    });
  });

  it.each<[string, Buffer, number | string]>([
    ["nothing", Buffer.alloc(0), "nothing"],
    ["half a header", good.subarray(0, 11), "nothing"],
    ["an answer", counting(good, 2, 0x8180), "nothing"],
    ["a bare header", good.subarray(0, 12), formErr],
    ["opcode NOTIFY", counting(good, 2, 0x2000), notImp],
    ["opcode UPDATE", counting(good, 2, 0x2800), notImp],
    ["opcode IQUERY", counting(good, 2, 0x0800), notImp],
    ["no question", counting(good, 4, 0), formErr],
    ["two questions", counting(good, 4, 2), formErr],
    ["65535 questions", counting(good, 4, 65_535), formErr],
    ["an answer in a query", counting(good, 6, 1), formErr],
    ["65535 authorities", counting(good, 8, 65_535), formErr],
    ["a missing additional record", counting(good, 10, 2), formErr],
    ["class CHAOS", query("version.bind", { type: "TXT", class: "CH" }), formErr],
    ["class ANY", raw([...label("example"), 0], { classNumber: 255 }), formErr],
    ["a cut name", good.subarray(0, 20), formErr],
    ["a cut type", raw([...label("example"), 0]).subarray(0, -3), formErr],
    ["the root", raw([0]), formErr],
    ["a compression pointer", raw([0xc0, 12]), formErr],
    ["a reserved label", raw([0x40, 1, 0]), formErr],
    ["a dot in a label", raw([...label("evil.example"), ...label("org"), 0]), formErr],
    ["a backslash in a label", raw([...label("evil\\"), ...label("example"), 0]), formErr],
    ["a blank in a label", raw([...label("a b"), 0]), formErr],
    ["a zero byte in a label", raw([...label("a\0b"), 0]), formErr],
    ["a byte above ASCII", raw([...label("\xe9"), 0]), formErr],
    ["DEL", raw([...label("\x7f"), 0]), formErr],
    ["a name of 255 characters", raw([...[1, 2, 3, 4].flatMap(() => label("a".repeat(63))), 0]), formErr],
    [
      "a long name that may be",
      raw([...[1, 2, 3].flatMap(() => label("a".repeat(63))), ...label("a".repeat(61)), 0]),
      "query",
    ],
    ["an underscore and digits", raw([...label("_443"), ...label("_tcp"), ...label("1x"), 0]), "query"],
    ["a message too large", Buffer.concat([good, Buffer.alloc(maxQuerySize)]), formErr],
    ["two OPT records", counting(Buffer.concat([good, good.subarray(-11)]), 10, 2), formErr],
    ["three additional records", counting(Buffer.concat([good, ...Array<Buffer>(2).fill(address)]), 10, 3), formErr],
    ["two additional records", counting(Buffer.concat([good, address]), 10, 2), "query"],
    ["an option that is cut", counting(good, good.length - 2, 40), formErr],
  ])("says of %s what it is", (_, message, code) => expect(codeOf(message)).toBe(code));

  it("repeats id and opcode of what makes no sense, and nothing else", () => {
    expect(parseQuery(counting(good, 2, 0x2100))).toEqual(Buffer.from([0, 1, 0xa1, 0x84, 0, 0, 0, 0, 0, 0, 0, 0]));
  });

  it("survives any bytes, and any change of good ones", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1500 }), (bytes) => void parseQuery(Buffer.from(bytes))),
      { numRuns: 2000 },
    );
    const change = fc.record({ at: fc.nat(good.length - 1), byte: fc.nat(255) });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 8 }), fc.nat(good.length), (changes, size) => {
        const bytes = Buffer.from(good);
        for (const { at, byte } of changes) bytes[at] = byte;
        const parsed = parseQuery(bytes.subarray(0, size));
        if (parsed !== null && !Buffer.isBuffer(parsed)) expect(parsed.name).toMatch(/^[!-[\]-~]+$/);
      }),
      { numRuns: 2000 },
    );
  });

  it("is not slowed down by pointers to pointers", () => {
    const pointers = Buffer.alloc(1100);
    for (let at = 0; at + 1 < pointers.length; at += 2) pointers.writeUInt16BE(0xc000 | Math.max(0, at + 25), at);
    const message = counting(Buffer.concat([query("example.org"), pointers]), 10, 2);
    const begin = performance.now();
    for (let i = 0; i < 100; i += 1) parseQuery(message);
    expect((performance.now() - begin) / 100).toBeLessThan(2);
  });
});
