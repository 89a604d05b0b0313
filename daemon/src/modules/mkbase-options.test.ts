import { describe, expect, it } from "vitest";
import { mkbaseUsage, parseMkbase, UsageError } from "./mkbase-options.js";

const sha256 = "0".repeat(64);

describe("parseMkbase()", () => {
  it("reads a kind alone", () => {
    expect(parseMkbase(["busybox"])).toEqual({
      kind: "busybox",
      operands: [],
      name: null,
      force: false,
      url: null,
      sha256: null,
      packages: null,
      formats: ["squashfs", "erofs"],
      requires: [],
      conflicts: [],
    });
  });

  it.each([
    [["debian", "trixie"], { kind: "debian", operands: ["trixie"] }],
    [["debian", "--packages", "git,,curl,"], { packages: ["git", "curl"] }],
    [["debian", "--packages="], { packages: [] }],
    [["--force", "busybox", "--name=x", "--format", "erofs"], { force: true, name: "x", formats: ["erofs"] }],
    [["busybox", "--format=squashfs"], { formats: ["squashfs"] }],
    [["from-dir", "/a", "b"], { kind: "from-dir", operands: ["/a", "b"] }],
    [["from-dir", "/a", "--name", "b"], { operands: ["/a"], name: "b" }],
    [["from-dir", "--", "-a", "b"], { operands: ["-a", "b"] }],
    [["void", "--url", "http://h/x", "--sha256", sha256], { kind: "void", url: "http://h/x", sha256 }],
    [["busybox", "--requires", "a, b,", "--conflicts=c"], { requires: ["a", "b"], conflicts: ["c"] }],
    [["list"], { kind: "list" }],
  ])("reads %j", (args, request) => {
    expect(parseMkbase(args)).toMatchObject(request);
  });

  it.each([
    [[], /a kind of base is missing/],
    [["fedora"], /no kind "fedora", known are busybox/],
    [["busybox", "x"], /"x" is too much for busybox/],
    [["debian", "a", "b"], /"b" is too much/],
    [["from-dir"], /needs a path and a name/],
    [["from-dir", "/a"], /needs a path and a name/],
    [["from-dir", "/a", "b", "c"], /"c" is too much/],
    [["alpine"], /alpine needs --url ADDRESS --sha256 HEX/],
    [["ubuntu", "--url", "http://h/"], /ubuntu needs/],
    [["void", "--sha256", sha256], /void needs/],
    [["busybox", "--url", "http://h/"], /--url and --sha256 are for alpine/],
    [["busybox", "--packages", "git"], /--packages is for debian/],
    [["busybox", "--format", "iso"], /no format "iso", known are squashfs, erofs, both/],
    [["busybox", "--requires", "a,../b"], /"..\/b" cannot be the name of a module/],
    [["busybox", "--forse"], /--forse/],
    [["busybox", "--name"], /--name/],
    [["list", "all"], /"all" is too much/],
  ])("refuses %j", (args, message) => {
    expect(() => parseMkbase(args)).toThrow(UsageError);
    expect(() => parseMkbase(args)).toThrow(message);
  });

  it("explains every kind and option", () => {
    for (const word of "busybox debian from-dir alpine ubuntu void list --name --force --url --sha256 --packages --format".split(
      " ",
    ))
      expect(mkbaseUsage).toContain(word);
  });
});
