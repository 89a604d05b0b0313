import fc from "fast-check";
import { isSquashError } from "@squash/sdk/errors";
import { describe, expect, it } from "vitest";
import { maxPieceBytes } from "./pieces.js";
import { parseStoredFile, type StoredFile } from "./stored-file.js";

const sha256 = fc.stringMatching(/^[0-9a-f]{64}$/);
const pieces = fc.array(fc.record({ sha256, size: fc.integer({ min: 1, max: maxPieceBytes }) }), { maxLength: 8 });
const files: fc.Arbitrary<StoredFile> = fc
  .record({ pieces, sha256, isWhole: fc.boolean(), hasDigest: fc.boolean() })
  .map(({ isWhole, hasDigest, ...rest }) => ({
    size: rest.pieces.reduce((sum, { size }) => sum + size, 0),
    sha256: isWhole || hasDigest ? rest.sha256 : null,
    stored: isWhole ? "whole" : "pieces",
    pieces: rest.pieces,
  }));

function codeOf(value: unknown): string {
  try {
    parseStoredFile(value, "modules/x.manifest.json");
    return "none";
  } catch (error) {
    expect((error as Error).message).toContain('"modules/x.manifest.json"');
    if (!isSquashError(error)) return `${error as Error}`;
    expect(error.details).toEqual({ key: "modules/x.manifest.json" });
    return error.code;
  }
}

describe("how a file is stored", () => {
  it("is read as it was written", () => {
    fc.assert(
      fc.property(files, (file) => {
        expect(parseStoredFile(JSON.parse(JSON.stringify(file)), "x")).toEqual(file);
      }),
    );
  });

  it("is refused, or is one that can be, whatever it says", () => {
    const values = fc.oneof(
      fc.jsonValue(),
      fc.record(
        { size: fc.jsonValue(), sha256: fc.jsonValue(), stored: fc.jsonValue(), pieces: fc.jsonValue() },
        { requiredKeys: [] },
      ),
      fc
        .tuple(files, fc.constantFrom("size", "sha256", "stored", "pieces"), fc.jsonValue())
        .map(([file, key, value]) => ({
          ...file,
          [key]: value,
        })),
    );
    fc.assert(
      fc.property(values, (value) => {
        const code = codeOf(value);
        if (code === "s3_object_invalid") return;
        expect(code).toBe("none");
        const read = parseStoredFile(value, "x");
        expect(read.pieces.reduce((sum, { size }) => sum + size, 0)).toBe(read.size);
        expect(read.stored === "whole" && read.sha256 === null).toBe(false);
      }),
    );
  });

  const digest = "0".repeat(64);
  const good = { size: 5, sha256: digest, stored: "whole", pieces: [{ sha256: digest, size: 5 }] };
  it.each<[string, object]>([
    ["pieces of another sum", { size: 6 }],
    ["a size below none", { size: -5, pieces: [{ sha256: digest, size: -5 }] }],
    ["a size that is no whole number", { size: 0.5, pieces: [{ sha256: digest, size: 0.5 }] }],
    [
      "a piece of nothing",
      {
        pieces: [
          { sha256: digest, size: 5 },
          { sha256: digest, size: 0 },
        ],
      },
    ],
    ["a piece that is too large", { size: maxPieceBytes + 1, pieces: [{ sha256: digest, size: maxPieceBytes + 1 }] }],
    ["a digest that leads elsewhere", { pieces: [{ sha256: `../${"0".repeat(61)}`, size: 5 }] }],
    ["a digest in capitals", { sha256: "A".repeat(64) }],
    ["one object without its digest", { sha256: null }],
    ["another way to store it", { stored: "else" }],
    ["more pieces than there can be", { size: 81_921, pieces: Array(81_921).fill({ sha256: digest, size: 1 }) }],
  ])("is refused with %s", (_name, change) => {
    expect(codeOf(good)).toBe("none");
    expect(codeOf({ ...good, ...change })).toBe("s3_object_invalid");
  });
});
