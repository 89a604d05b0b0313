import { describe, expect, it } from "vitest";

import { loadEnvironment } from "./environment.js";

describe("loadEnvironment()", () => {
  it("has defaults, also for empty variables", () => {
    const defaults = { url: "http://127.0.0.1:8080", token: undefined, isPlain: false };
    expect(loadEnvironment({})).toMatchObject(defaults);
    const empty = { SQUASH_API: "", SQUASH_PORT: "", SQUASH_AUTH_TOKEN: "", NO_COLOR: "" };
    expect(loadEnvironment(empty)).toMatchObject(defaults);
  });

  it("follows SQUASH_PORT, and SQUASH_API before it", () => {
    expect(loadEnvironment({ SQUASH_PORT: "9" }).url).toBe("http://127.0.0.1:9");
    expect(loadEnvironment({ SQUASH_PORT: "9", SQUASH_API: "unix:/a" }).url).toBe("unix:/a");
  });

  it("has no colours where NO_COLOR or the terminal says so", () => {
    expect(loadEnvironment({ NO_COLOR: "1" }).isPlain).toBe(true);
    expect(loadEnvironment({ TERM: "dumb" }).isPlain).toBe(true);
  });

  it("hands the daemon's program all but the CLI's own variable", () => {
    const { forDaemon } = loadEnvironment({ SQUASH_API: "unix:/a", SQUASH_DATA: "/d", PATH: "/bin" });
    expect(forDaemon).toEqual({ SQUASH_DATA: "/d", PATH: "/bin" });
  });
});
