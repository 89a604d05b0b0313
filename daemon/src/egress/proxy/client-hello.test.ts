import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ClientHelloReader, type HelloResult } from "./client-hello.js";
import { extension, helloFor, helloMessage, records, serverName, vector } from "./testing/build-hello.js";
import { capturedHellos } from "./testing/captured-hellos.js";

function read(...chunks: readonly Buffer[]): HelloResult {
  const reader = new ClientHelloReader();
  let result: HelloResult = { kind: "more" };
  for (const chunk of chunks) result = reader.push(chunk);
  return result;
}

function reasonOf(bytes: Buffer): string {
  const result = read(bytes);
  return result.kind === "bad" ? result.reason : `not bad: ${JSON.stringify(result)}`;
}

const named = (name: string | Buffer): Buffer => records(helloMessage({ extensions: [serverName(name)] }));

/** The name as a reader without any suspicion finds it, in one whole record. */
function naiveName(bytes: Buffer): string | null {
  try {
    let at = 5 + 4 + 2 + 32;
    at += 1 + bytes.readUInt8(at);
    at += 2 + bytes.readUInt16BE(at);
    at += 1 + bytes.readUInt8(at);
    const end = at + 2 + bytes.readUInt16BE(at);
    for (at += 2; at + 4 <= end; at += 4 + bytes.readUInt16BE(at + 2)) {
      if (bytes.readUInt16BE(at) !== 0) continue;
      const size = bytes.readUInt16BE(at + 7);
      return bytes.toString("latin1", at + 9, at + 9 + size);
    }
  } catch {
    // past the end: nothing to compare with
  }
  return null;
}

describe.each(capturedHellos)("the ClientHello of $client", ({ serverName: name, alpn, bytes }) => {
  const hello = { kind: "hello", serverName: name, ech: false, alpn };

  it("is read at once", () => expect(read(bytes)).toEqual(hello));

  it("is read in two segments, cut anywhere", () => {
    for (let at = 1; at < bytes.length; at++) {
      const reader = new ClientHelloReader();
      expect(reader.push(bytes.subarray(0, at))).toEqual({ kind: "more" });
      expect(reader.push(bytes.subarray(at))).toEqual(hello);
      expect(reader.received.equals(bytes)).toBe(true);
    }
  });

  it("is read byte by byte", () => {
    const reader = new ClientHelloReader();
    const results = [...bytes].map((byte) => reader.push(Buffer.from([byte])));
    expect(results.slice(0, -1).every((result) => result.kind === "more")).toBe(true);
    expect(results.at(-1)).toEqual(hello);
  });

  it("is read from two records, cut anywhere, and from many", () => {
    const message = bytes.subarray(5);
    for (let at = 1; at < message.length; at++) expect(read(records(message, [at]))).toEqual(hello);
    expect(read(records(message, Array<number>(63).fill(1)))).toEqual(hello);
  });

  it("is read where more records follow, which are kept", () => {
    const early = Buffer.from([20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 2, 5, 5]);
    const reader = new ClientHelloReader();
    expect(reader.push(Buffer.concat([bytes, early]))).toEqual(hello);
    expect(reader.received.equals(Buffer.concat([bytes, early]))).toBe(true);
  });

  it("never yields another name when it is damaged, whatever the pieces", () => {
    const change = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), fc.nat(bytes.length), (changes, at) => {
        const damaged = Buffer.from(bytes);
        for (const [place, value] of changes) damaged[place] = value;
        const whole = read(damaged);
        expect(read(damaged.subarray(0, at), damaged.subarray(at))).toEqual(whole);
        if (whole.kind !== "hello") return;
        // what is read as one record was laid out as the naive reader takes it
        if (damaged.readUInt16BE(3) === bytes.length - 5) {
          expect(whole.serverName).toBe(naiveName(damaged)?.toLowerCase().replace(/\.$/, "") ?? null);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("ClientHelloReader", () => {
  it("normalises case and one final dot", () => {
    expect(read(named("WWW.Example.ORG."))).toMatchObject({ kind: "hello", serverName: "www.example.org" });
  });

  it.each([
    "",
    ".",
    "a..b",
    "a.example.org..",
    "-a.org",
    "a-.org",
    "1.2.3.4",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
  ])("refuses the name %j", (name) => expect(reasonOf(named(name))).toMatch(/^a malformed ClientHello: /));

  it.each([
    "a b.org",
    "a.org\0",
    "a.org\0.example.org",
    "a.org\n",
    "a/b",
    "a:443",
    "[::1]",
    "::1",
    "*.org",
    "a@b.org",
    "ü.org",
  ])("refuses the name %j for its characters", (name) =>
    expect(reasonOf(named(name))).toBe("a malformed ClientHello: its server name is not a host name"),
  );

  it("refuses names and labels that are too long", () => {
    expect(read(named(`${"a".repeat(63)}.org`))).toMatchObject({ kind: "hello" });
    expect(reasonOf(named(`${"a".repeat(64)}.org`))).toMatch(/not a host name/);
    expect(reasonOf(named(Array(64).fill("abc").join(".")))).toMatch(/not a host name/);
  });

  it.each([0xfe0d, 0xff02, 0xffce])("reports the encrypted hello of extension %i", (type) => {
    const extensions = [serverName("cover.example.org"), extension(type, Buffer.alloc(40))];
    expect(read(records(helloMessage({ extensions })))).toMatchObject({ serverName: "cover.example.org", ech: true });
  });

  it("gives no name where there are no extensions", () => {
    const none = { kind: "hello", serverName: null, ech: false, alpn: [] };
    expect(read(records(helloMessage({ extensions: null })))).toEqual(none);
    expect(read(records(helloMessage({ extensions: [] })))).toEqual(none);
  });

  const entry = (type: number, name: string): Buffer =>
    Buffer.concat([Buffer.from([type]), vector(2, Buffer.from(name))]);
  const faults: Readonly<Record<string, readonly [Buffer, RegExp]>> = {
    "another record type": [records(helloMessage(), [], 23), /^not a TLS handshake$/],
    "plain HTTP": [Buffer.from("GET / HTTP/1.1\r\n\r\n"), /^not a TLS handshake$/],
    "an SSL 2 hello": [Buffer.from([0x80, 0x2e, 1, 3, 1]), /^not a TLS handshake$/],
    "an unknown record version": [Buffer.from([22, 4, 0]), /unknown version/],
    "an empty record": [Buffer.from([22, 3, 1, 0, 0]), /a length that is not allowed/],
    "an empty record between": [
      Buffer.concat([Buffer.from([22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 0]), records(helloMessage().subarray(1))]),
      /a length that is not allowed/,
    ],
    "another type between": [
      Buffer.concat([Buffer.from([22, 3, 1, 0, 1, 1, 21, 3, 1, 0, 2, 1, 0]), records(helloMessage().subarray(1))]),
      /^not a TLS handshake$/,
    ],
    "a record of more than 16 KiB": [Buffer.from([22, 3, 1, 0x40, 0x01]), /a length that is not allowed/],
    "another message": [records(helloMessage({ type: 2 })), /^not a ClientHello$/],
    "a message that is too long": [records(Buffer.from([1, 1, 0, 1])), /more than 65536 bytes/],
    "too many records": [records(helloMessage(), Array<number>(64).fill(1)), /more than 64 records/],
    "something after it": [records(Buffer.concat([helloMessage(), Buffer.alloc(1)])), /after the ClientHello/],
    "a second one in its record": [records(Buffer.concat([helloMessage(), helloMessage()])), /after the ClientHello/],
    "an unknown version": [records(helloMessage({ version: [2, 0] })), /its version/],
    "a long session identifier": [records(helloMessage({ session: Buffer.alloc(33) })), /out of bounds/],
    "no cipher suites": [records(helloMessage({ ciphers: Buffer.alloc(0) })), /out of bounds/],
    "half a cipher suite": [records(helloMessage({ ciphers: Buffer.alloc(3) })), /half a cipher suite/],
    "no compression method": [records(helloMessage({ compression: Buffer.alloc(0) })), /out of bounds/],
    "something after the extensions": [records(helloMessage({ trailing: Buffer.alloc(1) })), /longer than its fields/],
    "half a length of extensions": [records(helloMessage({ extensions: null, trailing: Buffer.alloc(1) })), /longer/],
    "an extension cut off": [records(helloMessage({ extensions: [Buffer.from([0, 0, 0, 9, 1])] })), /longer than what/],
    "half an extension": [records(helloMessage({ extensions: [Buffer.from([0, 5, 0])] })), /longer than what/],
    "an extension twice": [
      records(helloMessage({ extensions: [extension(5, Buffer.alloc(0)), extension(5, Buffer.alloc(0))] })),
      /there twice/,
    ],
    "two server name extensions": [
      records(helloMessage({ extensions: [serverName("a.org"), serverName("b.org")] })),
      /there twice/,
    ],
    "two names": [helloFor("a.example.org", "b.example.org"), /more than one server name/],
    "an empty name list": [records(helloMessage({ extensions: [extension(0, vector(2))] })), /out of bounds/],
    "an empty name extension": [
      records(helloMessage({ extensions: [extension(0, Buffer.alloc(0))] })),
      /longer than what/,
    ],
    "a name of another type": [
      records(helloMessage({ extensions: [extension(0, vector(2, entry(1, "a.org")))] })),
      /of an unknown type/,
    ],
    "something after the name list": [
      records(
        helloMessage({ extensions: [extension(0, Buffer.concat([vector(2, entry(0, "a.org")), Buffer.alloc(1)]))] }),
      ),
      /longer than its fields/,
    ],
    "a name longer than its list": [
      records(helloMessage({ extensions: [extension(0, vector(2, Buffer.from([0, 0, 9, 65])))] })),
      /longer than what/,
    ],
    "an empty ALPN list": [records(helloMessage({ extensions: [extension(16, vector(2))] })), /out of bounds/],
    "an empty protocol": [
      records(helloMessage({ extensions: [extension(16, vector(2, vector(1), vector(1)))] })),
      /out of bounds/,
    ],
  };

  it.each(Object.entries(faults))("refuses %s", (_, [bytes, reason]) => expect(reasonOf(bytes)).toMatch(reason));

  it("refuses more than 64 KiB, before it is there", () => {
    const huge = helloMessage({ extensions: [extension(21, Buffer.alloc(0xff00)), serverName("a.org")] });
    expect(read(records(huge, [16_000, 16_000, 16_000, 16_000]))).toMatchObject({ kind: "hello", serverName: "a.org" });
    const larger = Buffer.concat([Buffer.from([1, 0, 0xff, 0xff]), Buffer.alloc(0xffff)]);
    const reader = new ClientHelloReader();
    const sizes = Array<number>(60).fill(1_090);
    expect(reader.push(records(larger, sizes))).toMatchObject({
      kind: "bad",
      reason: "a ClientHello of more than 65536 bytes",
    });
  });

  it("keeps nothing of what follows a fault", () => {
    const reader = new ClientHelloReader();
    reader.push(Buffer.from([0]));
    for (let round = 0; round < 100; round++) reader.push(Buffer.alloc(65_536));
    expect(reader.received.length).toBe(1);
  });

  it("reads random bytes, and random bytes in records, without a crash", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.array(fc.integer({ min: 1, max: 50 })), (bytes, sizes) => {
        read(Buffer.from(bytes));
        read(records(Buffer.concat([Buffer.from([1, 0, 0, bytes.length & 0xff]), Buffer.from(bytes)]), sizes));
      }),
      { numRuns: 2_000 },
    );
  });

  it("takes 64 KiB a byte at a time in no time", () => {
    const message = helloMessage({ extensions: [extension(21, Buffer.alloc(0xf000)), serverName("a.org")] });
    const bytes = records(message, [16_384, 16_384, 16_384]);
    const reader = new ClientHelloReader();
    const before = performance.now();
    let result: HelloResult = { kind: "more" };
    for (const byte of bytes) result = reader.push(Buffer.from([byte]));
    expect(result).toMatchObject({ kind: "hello", serverName: "a.org" });
    expect(performance.now() - before).toBeLessThan(1_000);
  });
});
