import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readRecords } from "./diff-records.js";

interface Parts {
  readonly kind: number;
  readonly path: Uint8Array;
  readonly old: Uint8Array;
  readonly now: Uint8Array;
}

function encode({ kind, path, old, now }: Parts): Buffer {
  const head = Buffer.alloc(72);
  head.writeUInt8(kind, 0);
  head.writeUInt8(8, 1);
  head.writeUInt8(8, 2);
  head.writeUInt8(16, 3);
  head.writeUInt32LE(0o644, 4);
  head.writeUInt32LE(path.length, 40);
  head.writeBigUInt64LE(BigInt(old.length), 56);
  head.writeBigUInt64LE(BigInt(now.length), 64);
  return Buffer.concat([head, path, old, now]);
}

async function* cut(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield await Promise.resolve(bytes.subarray(at, at + size));
}

async function join(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of chunks) pieces.push(piece);
  return Buffer.concat(pieces);
}

const bytes = fc.uint8Array({ maxLength: 100 });
const parts = fc.record({ kind: fc.integer({ min: 0, max: 4 }), path: bytes, old: bytes, now: bytes });

describe("records of a comparison", () => {
  it("are read as they were written, however they are cut and whatever is read of them", async () => {
    const size = fc.integer({ min: 1, max: 200 });
    await fc.assert(
      fc.asyncProperty(fc.array(parts, { maxLength: 8 }), size, fc.nat(3), async (all, most, wish) => {
        const found: [string, string, string][] = [];
        for await (const { path, contents } of readRecords(cut(Buffer.concat(all.map(encode)), most))) {
          const old = (wish & 1) === 0 ? "" : (await join(contents.before())).toString("hex");
          const now = (wish & 2) === 0 ? "" : (await join(contents.after())).toString("hex");
          found.push([path.toString("hex"), old, now]);
        }
        const hex = (part: Uint8Array, bit: number): string =>
          (wish & bit) === 0 ? "" : Buffer.from(part).toString("hex");
        expect(found).toEqual(
          all.map(({ path, old, now }) => [Buffer.from(path).toString("hex"), hex(old, 1), hex(now, 2)]),
        );
      }),
      { numRuns: 100 },
    );
  });

  it("refuses or ends on any bytes", async () => {
    const hostile = fc.tuple(fc.array(parts, { maxLength: 3 }), fc.nat(400), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(hostile, async ([all, at, value]) => {
        const content = Buffer.concat(all.map(encode));
        if (at < content.length) content[at] = value;
        try {
          for await (const { contents } of readRecords(cut(content, 50))) await join(contents.after());
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("refuses one that is cut off", async () => {
    const whole = encode({ kind: 1, path: Buffer.from("a"), old: Buffer.alloc(3), now: Buffer.alloc(4) });
    for (let size = 1; size < whole.length; size++) {
      const read = async (): Promise<void> => {
        for await (const _ of readRecords(cut(whole.subarray(0, size), 7)));
      };
      await expect(read()).rejects.toThrow(RangeError);
    }
  });
});
