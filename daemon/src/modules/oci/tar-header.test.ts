import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatHeader, formatPaxRecord, isZero, parseHeader, parsePax } from "./tar-header.js";

const header = { name: "a/b", mode: 0o4755, uid: 7, gid: 8, size: 9, mtimeS: 1_700_000_000, type: "0", linkname: "" };
/** Puts bytes into a header and its checksum right again. */
function changed(at: number, bytes: Buffer): Buffer {
  const block = formatHeader(header);
  bytes.copy(block, at);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

describe("A header of a tar file", () => {
  it("is read as it was written", () => {
    fc.assert(
      fc.property(
        fc.record({
          name: fc.string({ minLength: 1, maxLength: 100, unit: fc.constantFrom("a", "/", "é", "\xff", " ") }),
          mode: fc.nat(0o7777),
          uid: fc.nat(0o7777777),
          gid: fc.nat(0o7777777),
          size: fc.nat(),
          mtimeS: fc.nat(),
          type: fc.constantFrom("0", "1", "2", "3", "5", "6"),
          linkname: fc.string({ maxLength: 100, unit: fc.constantFrom("b", "/", "\xfe") }),
        }),
        (given) => {
          expect(parseHeader(formatHeader(given))).toEqual(given);
        },
      ),
    );
  });

  it("is refused with one byte changed", () => {
    fc.assert(
      fc.property(fc.nat(511), fc.integer({ min: 1, max: 255 }), (at, by) => {
        const block = formatHeader(header);
        block[at] = ((block[at] ?? 0) + by) % 256;
        // the blanks around the digits of the sum may be others
        if (at >= 148 && at < 156) return;
        expect(() => parseHeader(block)).toThrow(RangeError);
      }),
    );
  });

  it("has a prefix of its name only in the POSIX kind", () => {
    const prefix = Buffer.from("dir");
    expect(parseHeader(changed(345, prefix)).name).toBe("dir/a/b");
    const gnu = changed(257, Buffer.concat([Buffer.from("ustar  \0"), Buffer.alloc(80), prefix]));
    expect(parseHeader(gnu).name).toBe("a/b");
  });

  it("may have numbers in GNU's way, negative ones too, but not beyond what is exact", () => {
    const size = (bytes: number[]): number => parseHeader(changed(124, Buffer.from(bytes))).size;
    expect(size([0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1])).toBe(2 ** 33 + 1);
    expect(size([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe])).toBe(-2);
    expect(() => size([0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).toThrow(/too large/);
    expect(() => parseHeader(changed(124, Buffer.from("99")))).toThrow(/no number/);
  });

  it("is told from the end of the file", () => {
    expect([isZero(Buffer.alloc(512)), isZero(formatHeader(header))]).toEqual([true, false]);
  });
});

describe("A pax header", () => {
  it("is read as it was written, whatever the bytes", () => {
    const key = fc.string({ minLength: 1, unit: fc.constantFrom("a", ".", " ", "\n") });
    const bytes = fc.uint8Array({ maxLength: 1_200 }).map((array) => Buffer.from(array));
    fc.assert(
      fc.property(fc.array(fc.tuple(key, bytes), { maxLength: 5 }), (records) => {
        const found = parsePax(Buffer.concat(records.map(([name, value]) => formatPaxRecord(name, value))));
        expect(found).toEqual(new Map(records));
      }),
    );
  });

  it.each(["x", "5 a=b\n", "6 a=b", "99 a=b\n", "0 a=b\n", "-6 a=b\n", "6 abc\n", "6  a=\n5", "1e1 a=bcde\n"])(
    "is refused: %j",
    (text) => expect(() => parsePax(Buffer.from(text))).toThrow(/pax header is damaged/),
  );

  it("never fails in another way, and always ends", () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom("1", "2", "9", " ", "=", "\n", "a") }), (text) => {
        try {
          parsePax(Buffer.from(text));
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
      }),
      { numRuns: 1_000 },
    );
  });
});
