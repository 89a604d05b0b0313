import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { trustByHand } from "../../../test/support/modules.js";
import { DirectoryCatalog } from "./catalog.js";
import { appendTrailer } from "./module-trailer.js";
import { trustModule } from "./trust.js";

let dataDir: string;
let catalog: DirectoryCatalog;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-trust-"));
  mkdirSync(join(dataDir, "modules"));
  catalog = new DirectoryCatalog(dataDir, { defaultLayers: [] });
});
afterEach(() => rmSync(dataDir, { recursive: true }));

const pathOf = (file: string): string => join(dataDir, "modules", file);
const settle = (): void => utimesSync(join(dataDir, "modules"), 1_000, 1_000);

function put(file: string, content: string): void {
  writeFileSync(pathOf(file), content);
  settle();
}

/** What resolving says, once nothing is waited for any more. */
async function refusal(name = "a"): Promise<string> {
  settle();
  return catalog.resolve(name).then(
    () => "",
    (error: unknown) => (error as { code: string }).code + " " + (error as Error).message,
  );
}

describe("an image", () => {
  it("is used only when its manifest lists it with its very digest", async () => {
    put("a.erofs", "image");
    expect(await refusal()).toMatch(/^module_invalid .*there is no "modules\/a.manifest.json".*sq module trust a/);
    trustByHand(join(dataDir, "modules"), "a");
    expect(await refusal()).toBe("");
    put("a.squashfs", "newer");
    expect(await refusal()).toMatch(/^module_invalid .*does not list "a.squashfs"/);
    rmSync(pathOf("a.squashfs"));
    put("a.erofs", "Image");
    expect(await refusal()).toMatch(/^module_invalid .*its sha-256 is [0-9a-f]{64}, its manifest says [0-9a-f]{64}/);
    expect((await catalog.list())[0]?.problem).toMatch(/its sha-256 is/);
  });

  it("that is changed behind its time is found out all the same", async () => {
    put("a.erofs", "image");
    trustByHand(join(dataDir, "modules"), "a");
    expect(await refusal()).toBe("");
    const { atime, mtime } = statSync(pathOf("a.erofs"));
    writeFileSync(pathOf("a.erofs"), "Image");
    utimesSync(pathOf("a.erofs"), atime, mtime);
    expect(await refusal()).toMatch(/its sha-256 is/);
  });

  it.each([
    ["{", /is not JSON/],
    ["null", /is not an object/],
    ['{"schema":2}', /has schema 2, not 1/],
    ['{"schema":1,"name":"b"}', /is of module "b"/],
    ['{"schema":1,"name":"a"}', /does not say who made it when/],
    [
      '{"schema":1,"name":"a","built_at":"","builder":"","files":{"a.erofs":{"size":1,"sha256":"x"}}}',
      /no list of files/,
    ],
    ['{"schema":1,"name":"a","built_at":"","builder":"","files":{"../b.erofs":{}}}', /no list of files/],
    ['{"schema":1,"name":"a","built_at":"","builder":"","files":{},"requires":["../b"]}', /what is no module's name/],
    [" ".repeat(1_048_577), /is larger than/],
  ])("is refused with a manifest like %.60s", async (text, message) => {
    put("a.erofs", "image");
    put("a.manifest.json", text);
    expect(await refusal()).toMatch(message);
    expect((await catalog.list())[0]).toMatchObject({ name: "a", sha256: null, problem: message });
  });

  it("is refused where a link stands in for its manifest", async () => {
    put("a.erofs", "image");
    trustByHand(join(dataDir, "modules"), "a");
    renameSync(pathOf("a.manifest.json"), join(dataDir, "other"));
    symlinkSync(join(dataDir, "other"), pathOf("a.manifest.json"));
    expect(await refusal()).toMatch(/is no regular file/);
  });

  it("of which the manifest comes a moment later is waited for", async () => {
    put("a.erofs", "image");
    utimesSync(join(dataDir, "modules"), new Date(), new Date());
    const resolving = catalog.resolve("a");
    setTimeout(() => trustByHand(join(dataDir, "modules"), "a"), 80);
    expect(await resolving).toMatchObject({ name: "a" });
  });
});

describe("a digest", () => {
  it("is known to the next start, and taken again only for another file", async () => {
    put("a.erofs", "image");
    trustByHand(join(dataDir, "modules"), "a");
    await catalog.resolve("a");
    const cache = join(dataDir, "cache/verified.json");
    const kept = JSON.parse(readFileSync(cache, "utf8")) as { files: Record<string, { sha256: string }> };
    // a digest that only the cache has proves that the image itself is not read
    kept.files["a.erofs"]!.sha256 = "f".repeat(64);
    writeFileSync(cache, JSON.stringify(kept));
    settle();
    const next = new DirectoryCatalog(dataDir, { defaultLayers: [] });
    await expect(next.resolve("a")).rejects.toThrow(/its sha-256 is f{64}/);
    put("a.erofs", "image");
    expect(await next.resolve("a")).toMatchObject({ name: "a" });
  });

  it.each(["", "{", "[]", '{"version":1,"files":{"a.erofs":3}}', '{"version":2,"files":{}}'])(
    "is taken again where the cache is %j",
    async (text) => {
      put("a.erofs", "image");
      trustByHand(join(dataDir, "modules"), "a");
      mkdirSync(join(dataDir, "cache"));
      writeFileSync(join(dataDir, "cache/verified.json"), text);
      expect(await new DirectoryCatalog(dataDir, { defaultLayers: [] }).resolve("a")).toMatchObject({ name: "a" });
    },
  );

  it("is asked for by many at once, and taken once", async () => {
    put("a.erofs", "image");
    trustByHand(join(dataDir, "modules"), "a");
    const images = await Promise.all(Array.from({ length: 20 }, () => catalog.resolve("a")));
    expect(new Set(images.map(({ identity }) => identity)).size).toBe(1);
  });
});

describe("trustModule()", () => {
  it("makes images trusted as they are, and keeps what the manifest said besides", async () => {
    put("a.erofs", "image");
    await trustModule(catalog, "a");
    expect(await refusal()).toBe("");
    expect(await catalog.facts("a")).toMatchObject({ source: "trust", formats: ["erofs"] });
    trustByHand(join(dataDir, "modules"), "a", { requires: ["b"], more: 1 });
    put("a.erofs", "changed");
    put("a.squashfs", "twin");
    await trustModule(catalog, "a");
    expect(await refusal()).toBe("");
    expect(await catalog.facts("a")).toMatchObject({ source: "a test", requires: ["b"] });
    expect(JSON.parse(readFileSync(pathOf("a.manifest.json"), "utf8"))).toMatchObject({ more: 1 });
  });

  it("takes what an image says of itself where there was no manifest, and refuses one that is damaged", async () => {
    const image = (builder: string): string => {
      const bytes = Buffer.alloc(4_096);
      bytes.writeUInt32LE(0xe0f5e1e2, 1_024);
      bytes.set([12], 1_036);
      bytes.set([1], 1_040);
      bytes.set([1], 1_060);
      bytes.write(builder, 200);
      return bytes.toString("latin1");
    };
    writeFileSync(pathOf("a.erofs"), image("x"), "latin1");
    await appendTrailer(pathOf("a.erofs"), { name: "z", builder: "mkmod from-tar", requires: ["b"] });
    await trustModule(catalog, "a");
    expect(await catalog.facts("a")).toMatchObject({ source: "mkmod from-tar", requires: ["b"], problem: null });
    const whole = readFileSync(pathOf("a.erofs"));
    rmSync(pathOf("a.manifest.json"));
    whole[whole.length - 66] = 7;
    writeFileSync(pathOf("a.erofs"), whole);
    await expect(trustModule(catalog, "a")).rejects.toMatchObject({ code: "module_invalid", message: /is damaged/ });
    expect(await refusal()).toMatch(/there is no "modules\/a.manifest.json"/);
  });

  it("replaces a damaged manifest, and refuses what is absent or no regular file", async () => {
    put("a.erofs", "image");
    put("a.manifest.json", "{");
    await trustModule(catalog, "a");
    expect(await refusal()).toBe("");
    await expect(trustModule(catalog, "b")).rejects.toMatchObject({ code: "module_not_found" });
    await expect(trustModule(catalog, "../a")).rejects.toMatchObject({ code: "invalid_request" });
    symlinkSync("/etc/passwd", pathOf("c.erofs"));
    await expect(trustModule(catalog, "c")).rejects.toMatchObject({ code: "module_invalid" });
  });
});
