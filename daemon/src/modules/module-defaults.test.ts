import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DirectoryCatalog } from "./catalog.js";
import { checkedDefaults, readDefaults } from "./module-defaults.js";

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

  it("are read where there are any, and come with the module", async () => {
    const write = (text: string): void => writeFileSync(join(dataDir, "x.manifest.json"), text);
    expect(await readDefaults(dataDir, "x")).toBeNull();
    write("{");
    expect(await readDefaults(dataDir, "x")).toBeNull();
    write("{}");
    expect(await readDefaults(dataDir, "x")).toBeNull();
    write(`{"defaults":{"user":"web","more":"${"x".repeat(1_048_576)}"}}`);
    expect(await readDefaults(dataDir, "x")).toBeNull();
    write('{"defaults":{"user":"web"}}');
    expect(await readDefaults(dataDir, "x")).toEqual({ ...nothing, user: "web" });
  });

  it("are part of what the catalog knows", async () => {
    mkdirSync(join(dataDir, "modules"));
    writeFileSync(join(dataDir, "modules/x.erofs"), "");
    const catalog = new DirectoryCatalog(dataDir, { defaultLayers: [] });
    expect(await catalog.resolve("x")).not.toHaveProperty("defaults");
    writeFileSync(join(dataDir, "modules/x.manifest.json"), '{"defaults":{"user":"web"}}');
    expect(await catalog.resolve("x")).toMatchObject({ defaults: { ...nothing, user: "web" } });
  });
});
