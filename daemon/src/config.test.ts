import { describe, expect, it } from "vitest";
import { loadConfig } from "./config.js";
import { urlOf } from "./listen.js";

describe("loadConfig()", () => {
  it("listens on loopback alone by default", () => {
    expect(urlOf(loadConfig({}).listen)).toBe("http://127.0.0.1:8080");
  });

  it("refuses an address that other machines reach, unless there is a token", () => {
    for (const address of ["0.0.0.0", "::", "192.0.2.1", "[::]:99", "10.0.0.1:80"]) {
      expect(() => loadConfig({ SQUASH_LISTEN: address })).toThrow(/SQUASH_AUTH_TOKEN/);
      expect(loadConfig({ SQUASH_LISTEN: address, SQUASH_AUTH_TOKEN: "t" }).authToken).toBe("t");
    }
    for (const address of ["127.0.0.1", "127.9.9.9:1", "::1", "[::1]:99", "localhost:80", "unix:/run/x.sock"]) {
      expect(() => loadConfig({ SQUASH_LISTEN: address })).not.toThrow();
    }
  });

  it.each([
    ["127.0.0.2:9", "http://127.0.0.2:9"],
    ["::1", "http://[::1]:8080"],
    ["[::1]:9", "http://[::1]:9"],
    ["localhost", "http://localhost:8080"],
    ["unix:/run/a.sock", "unix:/run/a.sock"],
  ])("reads SQUASH_LISTEN=%s as %s", (text, url) => {
    expect(urlOf(loadConfig({ SQUASH_LISTEN: text }).listen)).toBe(url);
  });

  it("refuses names that it does not know, but not the client's", () => {
    expect(() => loadConfig({ SQUASH_MAX_SANDBOXS: "5" })).toThrow(/SQUASH_MAX_SANDBOXS: there is no such setting/);
    expect(() => loadConfig({ SQUASH_API: "http://elsewhere:1", OTHER: "x" })).not.toThrow();
  });

  it.each([
    ["SQUASH_PORT", "0"],
    ["SQUASH_PORT", "65536"],
    ["SQUASH_PORT", "80x"],
    ["SQUASH_LISTEN", "example.org"],
    ["SQUASH_LISTEN", "127.0.0.1:0"],
    ["SQUASH_LISTEN", "unix:relative"],
    ["SQUASH_LISTEN", `unix:/${"x".repeat(107)}`],
    ["SQUASH_DATA_DIR", "relative"],
    ["SQUASH_DATA_DIR", "/a/../b"],
    ["SQUASH_BACKEND", "firecracker"],
    ["SQUASH_MAX_SANDBOXES", "-1"],
    ["SQUASH_UPPER_LIMIT_MB", "15"],
    ["SQUASH_POOL_MB", "-1"],
    ["SQUASH_UPPER_BACKEND", "nfs"],
    ["SQUASH_POOL_SIZE", "1e3"],
    ["SQUASH_UID_BASE", "65537"],
    ["SQUASH_CGROUP_ROOT", "../x"],
    ["SQUASH_LOG_LEVEL", "loud"],
  ])("refuses %s=%s and names it", (name, value) => {
    expect(() => loadConfig({ [name]: value })).toThrow(name);
  });

  it("tells all problems at once, and never the token", () => {
    const load = (): unknown => loadConfig({ SQUASH_PORT: "x", SQUASH_POOL_SIZE: "y", SQUASH_AUTH_TOKEN: "se cret" });
    expect(load).toThrow(/SQUASH_PORT.*\n.*SQUASH_AUTH_TOKEN.*\n.*SQUASH_POOL_SIZE/);
    expect(load).not.toThrow(/cret/);
  });

  it("takes the older names too, and empty as unset", () => {
    expect(loadConfig({ SQUASH_DATA: "/srv/x/" }).dataDir).toBe("/srv/x");
    expect(loadConfig({ SQUASH_DATA: "/srv/x", SQUASH_DATA_DIR: "/srv/y" }).dataDir).toBe("/srv/y");
    expect(loadConfig({ SQUASH_DATA_DIR: "", SQUASH_BACKEND: "chroot" }).dataDir).toBe("/data");
  });
});
