import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { imageName, parseReference } from "./reference.js";

const digest = `sha256:${"0123456789abcdef".repeat(4)}`;
const hub = "registry-1.docker.io";

describe("An image reference", () => {
  it.each([
    ["debian", hub, "library/debian", "latest", null, "debian-latest"],
    ["debian:12-slim", hub, "library/debian", "12-slim", null, "debian-12-slim"],
    ["docker.io/debian", hub, "library/debian", "latest", null, "debian-latest"],
    ["index.docker.io/a/b", hub, "a/b", "latest", null, "b-latest"],
    ["someone/thing:v1.2_3", hub, "someone/thing", "v1.2_3", null, "thing-v1.2_3"],
    ["ghcr.io/a/b/c:t", "ghcr.io", "a/b/c", "t", null, "c-t"],
    ["localhost/x", "localhost", "x", "latest", null, "x-latest"],
    ["localhost:5000/x:5000", "localhost:5000", "x", "5000", null, "x-5000"],
    ["127.0.0.1:5000/x/y", "127.0.0.1:5000", "x/y", "latest", null, "y-latest"],
    ["[::1]:5000/x", "[::1]:5000", "x", "latest", null, "x-latest"],
    ["Registry/x", "Registry", "x", "latest", null, "x-latest"],
    [`debian@${digest}`, hub, "library/debian", null, digest, "debian-0123456789ab"],
    [`h:1/a__b/c--d.e:t@${digest}`, "h:1", "a__b/c--d.e", "t", digest, "c--d.e-t"],
  ])("%s is read with docker's defaults", (text, registry, repository, tag, at, name) => {
    const reference = parseReference(text);
    expect(reference).toEqual({ registry, repository, tag, digest: at });
    expect(imageName(reference)).toBe(name);
  });

  it.each([
    "",
    "/x",
    "x/",
    "a//b",
    "Upper",
    "a/../b",
    "../x",
    "x:",
    "x:-tag",
    "x@sha256:abc",
    "x@md5:00",
    `x@${digest}0`,
    "x y",
    "x\n",
    "http://h/x",
    "h:0/x",
    "h:99999/x",
    "user@h/x",
    "h.example/x?y",
    "h.example/x#y",
    "[::1/x",
    "-h.example/x",
    `x:${"t".repeat(129)}`,
    "a".repeat(256),
  ])("%j is refused", (text) => {
    expect(() => parseReference(text)).toThrow(/^Cannot read the image reference/);
  });

  it("never becomes an address of more than its parts, whatever it is", () => {
    const unit = fc.constantFrom("a", ".", "/", ":", "@", "%", "?", "#", "[", "]", "-", "_", "0", "A", " ", "\\");
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 12 }), (text) => {
        let reference;
        try {
          reference = parseReference(text);
        } catch {
          return;
        }
        const { registry, repository, tag } = reference;
        const url = new URL(`http://${registry}/v2/${repository}/manifests/${tag ?? ""}`);
        expect(url.pathname).toBe(`/v2/${repository}/manifests/${tag ?? ""}`);
        expect([url.username, url.search, url.hash]).toEqual(["", "", ""]);
      }),
      { numRuns: 5_000 },
    );
  });
});
