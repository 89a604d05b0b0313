import { describe, expect, it } from "vitest";
import type { AptSource } from "./apt-sources.js";
import { buildDebian, chooseSources, debianPackages, mmdebstrapCommand, parseSettings } from "./debian.js";

const source = (suite: string): AptSource => ({ options: {}, uri: "http://mirror.test/", suite, components: ["main"] });

describe("mmdebstrapCommand()", () => {
  it("fills a directory in a mount namespace of its own, from sources on its input", () => {
    const settings = ['Acquire::http::Proxy "http://proxy.test:1";'];
    const argv = mmdebstrapCommand("/scratch/root", { release: "bookworm", packages: ["git", "jq"], settings });
    expect(argv.slice(0, 8)).toEqual([
      "unshare",
      "--mount",
      "--propagation",
      "private",
      "--",
      "mmdebstrap",
      "--mode=root",
      "--variant=minbase",
    ]);
    expect(argv).toContain("--include=git,jq");
    expect(argv).toContain('--aptopt=Acquire::http::Proxy "http://proxy.test:1";');
    expect(argv).toContain("--dpkgopt=path-exclude=/usr/share/doc/*");
    expect(argv.indexOf("--dpkgopt=path-include=/usr/share/doc/*/copyright")).toBeGreaterThan(
      argv.indexOf("--dpkgopt=path-exclude=/usr/share/doc/*"),
    );
    expect(argv.slice(-3)).toEqual(["bookworm", "/scratch/root", "-"]);
  });

  it("asks for no packages where there are none", () => {
    const argv = mmdebstrapCommand("/r", { release: "bookworm", packages: [], settings: [] });
    expect(argv.some((word) => word.startsWith("--include"))).toBe(false);
  });
});

describe("chooseSources()", () => {
  it("takes those of the release", () => {
    const all = ["trixie", "bookworm", "bookworm-security", "bookworm-backports"].map(source);
    expect(chooseSources("bookworm", all).map(({ suite }) => suite)).toEqual(["bookworm", "bookworm-security"]);
  });

  it("says what the machine has instead", () => {
    expect(() => chooseSources("bookworm", [])).toThrow(
      'Cannot install Debian "bookworm": /etc/apt has no package source',
    );
    expect(() => chooseSources("bookworm", ["trixie", "trixie", "sid"].map(source))).toThrow(/has only trixie, sid;/);
    expect(() => chooseSources("bookworm", [source("bookworm-updates")])).toThrow(/has only bookworm-updates/);
  });
});

describe("parseSettings()", () => {
  it("passes on what reaches a mirror, and no other setting", () => {
    const dump = `Acquire::http::Proxy http://proxy.test:3128
Acquire::https::Proxy${" "}
Acquire::Check-Valid-Until false
Acquire::http::Proxy::other.test DIRECT
DPkg::Post-Invoke rm -rf /
`;
    expect(parseSettings(dump)).toEqual([
      'Acquire::http::Proxy "http://proxy.test:3128";',
      'Acquire::Check-Valid-Until "false";',
    ]);
    expect(parseSettings("")).toEqual([]);
  });
});

describe("buildDebian()", () => {
  const options = { dataDir: "/nonexistent", name: "000-x", builder: "test", formats: [], progress: () => {} };

  it.each(["-o", "git,curl", "a b", "Git", "", "../x", "a;b"])("refuses the package %j", async (name) => {
    const run = () => Promise.reject(new Error("it ran something"));
    await expect(buildDebian({ ...options, run, packages: [name] })).rejects.toMatchObject({ code: "invalid_request" });
    await expect(buildDebian({ ...options, run, release: name })).rejects.toMatchObject({ code: "invalid_request" });
  });

  it("has usual packages that it takes itself", () => {
    for (const name of debianPackages) expect(name).toMatch(/^[a-z0-9][a-z0-9+.-]*$/);
  });
});
