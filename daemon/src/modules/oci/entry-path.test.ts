import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseEntryPath } from "./entry-path.js";

describe("The name of a layer's entry", () => {
  it.each([
    ["a/b", "plain", "a/b"],
    ["./a//b/", "plain", "a/b"],
    ["/etc/passwd", "plain", "etc/passwd"],
    ["./", "plain", ""],
    ["/", "plain", ""],
    ["a..b/...", "plain", "a..b/..."],
    ["a/.wh.b", "whiteout", "a/b"],
    [".wh.a", "whiteout", "a"],
    [".wh....", "whiteout", "..."],
    ["a/.wh..wh..opq", "opaque", "a"],
    [".wh..wh..opq", "opaque", ""],
    ["a/.wh..wh.plnk", "ignored", "a"],
    ["a/.wh..wh.aufs", "ignored", "a"],
    [".wh..wh.plnk/12.34", "ignored", ".wh..wh.plnk"],
    ["a.wh.b", "plain", "a.wh.b"],
  ])("%j is %s of %j", (name, kind, path) => {
    expect(parseEntryPath(name)).toEqual({ kind, path: path === "" ? [] : path.split("/") });
  });

  it.each([
    ["", "has no name"],
    ["..", 'is a path with ".."'],
    ["a/../../etc/shadow", 'is a path with ".."'],
    ["a/../b", 'is a path with ".."'],
    ["/..", 'is a path with ".."'],
    ["a\0b", "has a zero byte in its name"],
    ["x".repeat(256), "has a name of more than 255 bytes"],
    ["a/".repeat(2_049), "is longer than 4096 bytes"],
    [".wh.", "is a whiteout of no file"],
    ["a/.wh..", "is a whiteout of no file"],
    ["a/.wh...", "is a whiteout of no file"],
    [".wh.a/b", "lies below a whiteout"],
  ])("%j is refused", (name, why) => {
    expect(() => parseEntryPath(name)).toThrow(why);
  });

  it("never leads out, or to a name that no file can have", () => {
    const piece = fc.constantFrom("a", "..", ".", "", ".wh.", ".wh..wh..opq", "\0", "b".repeat(300));
    fc.assert(
      fc.property(fc.array(piece), fc.constantFrom("/", "", "//"), (pieces, glue) => {
        let path: readonly string[];
        try {
          ({ path } = parseEntryPath(pieces.join(glue)));
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
          return;
        }
        for (const name of path) {
          expect(name).not.toMatch(/^\.{0,2}$|[\0/]/);
          expect(name.length).toBeLessThanOrEqual(255);
        }
      }),
      { numRuns: 1_000 },
    );
  });
});
