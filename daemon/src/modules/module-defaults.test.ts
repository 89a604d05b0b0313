import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DirectoryCatalog } from "./catalog.js";
import { checkedDefaults } from "./module-defaults.js";

let dataDir: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-defaults-"));
});
afterEach(() => rmSync(dataDir, { recursive: true }));

const nothing = { env: {}, workdir: "", user: "", entrypoint: [], cmd: [] };

describe("A module's defaults", () => {
  it("are what its manifest says", () => {
    const said = { env: { PATH: "/bin", _: "" }, workdir: "/srv", user: "1000", entrypoint: ["a"], cmd: [""] };
    expect(checkedDefaults(said)).toEqual(said);
  });

  it.each([
    null,
    "x",
    [],
    { env: { "A-B": "x", A: 1, "": "y", N: "\0" } },
    { env: ["A=b"] },
    { workdir: "srv", user: 1_000 },
    { workdir: "/a/../b", user: "65536" },
    { workdir: `/${"x".repeat(512)}`, user: "a:b" },
    { entrypoint: "sh", cmd: [1, null] },
  ])("are nothing that a request could not say: %j", (value) => {
    expect(checkedDefaults(value)).toEqual(nothing);
  });

  it("are part of what the catalog knows", async () => {
    const modules = join(dataDir, "modules");
    mkdirSync(modules);
    writeFileSync(join(modules, "x.erofs"), "");
    const catalog = new DirectoryCatalog(dataDir, { defaultLayers: [] });
    const sha256 = createHash("sha256").digest("hex");
    const manifest = { schema: 1, name: "x", built_at: "", builder: "", files: { "x.erofs": { size: 0, sha256 } } };
    const write = (more: object): void =>
      writeFileSync(join(modules, "x.manifest.json"), JSON.stringify({ ...manifest, ...more }));
    write({});
    expect(await catalog.resolve("x")).not.toHaveProperty("defaults");
    write({ defaults: { user: "web" } });
    expect(await catalog.resolve("x")).toMatchObject({ defaults: { ...nothing, user: "web" } });
  });
});
