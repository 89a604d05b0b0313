import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { olderDigest, olderManifest } from "./older-manifest.js";

const bytes = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const digest = "ab".repeat(32);

describe("the manifest of an older daemon's module", () => {
  it("is told from ours, and from what is none", () => {
    expect(olderManifest(bytes({ schema: 1, name: "100-x", squashfs_sha256: digest }))).toMatchObject({
      name: "100-x",
    });
    expect(olderManifest(bytes({ name: "100-x", version: "2", builder: "nix" }))).not.toBeNull();
    const ours = { schema: 1, name: "100-x", format: "erofs", file: {}, manifest: { builder: "x" }, digest };
    for (const other of [ours, { ...ours, builder: "x", digest: undefined }, {}, [], null, "text", { name: "100-x" }])
      expect(olderManifest(bytes(other))).toBeNull();
    expect(olderManifest(Buffer.from("{"))).toBeNull();
  });

  it("names a digest, none, or one that cannot be", () => {
    expect(olderDigest({ squashfs_sha256: digest })).toBe(digest);
    expect(olderDigest({ squashfs_sha256: `sha256:${digest.toUpperCase()}` })).toBe(digest);
    for (const none of [undefined, null, ""]) expect(olderDigest({ squashfs_sha256: none })).toBeNull();
    for (const odd of [1, {}, "ab", `${digest}0`, digest.replace("a", "g")])
      expect(() => olderDigest({ squashfs_sha256: odd })).toThrow(RangeError);
  });

  it("may be any bytes", () => {
    fc.assert(fc.property(fc.uint8Array(), (any) => void olderManifest(Buffer.from(any))));
    fc.assert(fc.property(fc.json(), (text) => void olderManifest(Buffer.from(text))));
  });
});
