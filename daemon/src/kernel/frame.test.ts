import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FieldReader, FieldWriter, FrameDecoder, encodeFrame, headerSize, maxPayload, type Frame } from "./frame.js";

interface Vector {
  readonly name: string;
  readonly type: number;
  readonly id: number;
  readonly status: number;
  readonly bytes: Buffer;
  readonly fields: readonly string[];
}

/** The vectors that the tests in native/test decode as well. */
const vectors: readonly Vector[] = readFileSync(new URL("../../../native/test/frames.hex", import.meta.url), "utf8")
  .split("\n")
  .filter((line) => line !== "" && !line.startsWith("#"))
  .map((line) => {
    const [name = "", type, id, status, hex = "", ...fields] = line.split(" ");
    const numbers = { type: Number(type), id: Number(id), status: Number(status) };
    return { name, ...numbers, bytes: Buffer.from(hex, "hex"), fields };
  });

function text(field: string): string {
  return field.slice(2).replaceAll("_", " ");
}

function decodeAll(decoder: FrameDecoder, chunks: readonly Buffer[]): Frame[] {
  return chunks.flatMap((chunk) => [...decoder.push(chunk)]);
}

/** Cuts bytes at the given places, in any order and number. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b);
  return sorted.slice(1).map((end, i) => Buffer.from(bytes.subarray(sorted[i], end)));
}

const anyFrame = fc.record({
  id: fc.nat(0xffffffff),
  type: fc.nat(0xffff),
  payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
});

describe("the vectors shared with the native tests", () => {
  it("are all there", () => expect(vectors.length).toBeGreaterThanOrEqual(8));

  it.each(vectors)("decode: $name", ({ type, id, status, bytes, fields }) => {
    const frames = decodeAll(new FrameDecoder(), [bytes]);
    expect(frames).toHaveLength(1);
    expect(frames[0]).toMatchObject({ type, id, status });
    const reader = new FieldReader(frames[0]!.payload);
    for (const field of fields) {
      if (field.startsWith("u:")) expect(reader.u32()).toBe(Number(text(field)));
      else if (field.startsWith("q:")) expect(reader.u64()).toBe(BigInt(text(field)));
      // only this side sends bytes; these are a text as well
      else if (field.startsWith("b:")) expect(Buffer.from(reader.string()).toString("hex")).toBe(text(field));
      else expect(reader.string()).toBe(text(field));
    }
    reader.end();
  });

  it.each(vectors)("encode: $name", ({ type, id, status, bytes, fields }) => {
    const writer = new FieldWriter();
    for (const field of fields) {
      if (field.startsWith("u:")) writer.u32(Number(text(field)));
      else if (field.startsWith("q:")) writer.u64(BigInt(text(field)));
      else if (field.startsWith("b:")) writer.bytes(Buffer.from(text(field), "hex"));
      else writer.string(text(field));
    }
    const frame = writer.frame(type, id);
    frame.writeUInt16LE(status, 10); // only the other side answers with one
    expect(frame.toString("hex")).toBe(bytes.toString("hex"));
  });
});

describe("FrameDecoder", () => {
  it("gives the same frames however the stream is cut", () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 8 }), fc.array(fc.nat(), { maxLength: 40 }), (frames, places) => {
        const stream = Buffer.concat(frames.map(({ type, payload, id }) => encodeFrame(type, payload, id)));
        const decoded = decodeAll(new FrameDecoder(), cut(stream, places));
        expect(decoded.map(({ id, type, payload }) => ({ id, type, payload: payload.toString("hex") }))).toEqual(
          frames.map(({ id, type, payload }) => ({ id, type, payload: payload.toString("hex") })),
        );
      }),
    );
  });

  it("throws RangeError on random bytes, or nothing, and holds back less than a frame", () => {
    const chunks = fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 20 });
    fc.assert(
      fc.property(chunks, (parts) => {
        const stream = parts.map((part) => Buffer.from(part));
        try {
          const frames = decodeAll(new FrameDecoder(), stream);
          const given = frames.reduce((sum, { payload }) => sum + headerSize + payload.length, 0);
          const fed = stream.reduce((sum, part) => sum + part.length, 0);
          expect(fed - given).toBeLessThan(headerSize + maxPayload);
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
          expect((error as Error).message).toMatch(/^a frame of \d+ bytes is larger than/);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("refuses a length beyond the limit as soon as the header is there, before anything of that size is allocated", () => {
    fc.assert(
      fc.property(fc.integer({ min: maxPayload + 1, max: 0xffffffff }), (size) => {
        const header = Buffer.alloc(headerSize);
        header.writeUInt32LE(size, 0);
        const decoder = new FrameDecoder();
        expect([...decoder.push(header.subarray(0, headerSize - 1))]).toEqual([]);
        const before = process.memoryUsage().arrayBuffers;
        expect(() => [...decoder.push(header.subarray(headerSize - 1))]).toThrow(RangeError);
        expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1_000_000);
      }),
      { numRuns: 50 },
    );
  });

  it("takes a frame of exactly the limit", () => {
    const payload = Buffer.alloc(maxPayload, "x");
    const stream = encodeFrame(7, payload, 1);
    const frames = decodeAll(new FrameDecoder(), cut(stream, [5, headerSize, 100_000, 200_000]));
    expect(frames.map((frame) => frame.payload.equals(payload))).toEqual([true]);
    expect(() => encodeFrame(7, Buffer.alloc(maxPayload + 1))).toThrow(RangeError);
  });
});

describe("FieldReader", () => {
  const reads = fc.array(fc.constantFrom("u32" as const, "u64" as const, "string" as const, "end" as const), {
    maxLength: 20,
  });

  it("throws RangeError, or nothing, whatever it is asked to read", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), reads, (bytes, operations) => {
        const reader = new FieldReader(Buffer.from(bytes));
        try {
          for (const operation of operations) reader[operation]();
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("reads what FieldWriter wrote, and notices what is left over", () => {
    const anyField = fc.oneof(
      fc.nat(0xffffffff).map((value) => ["u32", value] as const),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value) => ["u64", value] as const),
      fc.string({ unit: "grapheme" }).map((value) => ["string", value] as const),
    );
    fc.assert(
      fc.property(fc.array(anyField, { maxLength: 12 }), (fields) => {
        const writer = new FieldWriter();
        for (const [kind, value] of fields) {
          if (kind === "u32") writer.u32(value);
          else if (kind === "u64") writer.u64(value);
          else writer.string(value);
        }
        const payload = writer.frame(1).subarray(headerSize);
        const reader = new FieldReader(payload);
        expect(fields.map(([kind]) => reader[kind]())).toEqual(fields.map(([, value]) => value));
        expect(() => reader.end()).not.toThrow();
        expect(() => new FieldReader(Buffer.concat([payload, Buffer.alloc(1)])).end()).toThrow(RangeError);
      }),
    );
  });

  it("refuses a string that says it is longer than what there is", () => {
    const payload = new FieldWriter().u32(0xffffffff).u32(0x61616161).frame(1).subarray(headerSize);
    expect(() => new FieldReader(payload).string()).toThrow("longer than its payload");
  });
});
