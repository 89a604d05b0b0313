import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { trustByHand } from "../../../test/support/modules.js";
import { DirectoryCatalog } from "./catalog.js";

let dataDir: string;
let catalog: DirectoryCatalog;
let clock = 1_000;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-catalog-"));
  mkdirSync(join(dataDir, "modules"));
  catalog = new DirectoryCatalog(dataDir, { defaultLayers: [] });
});
afterEach(() => rmSync(dataDir, { recursive: true }));

function put(file: string, content = "x", time = 1_700_000_000): void {
  const path = join(dataDir, "modules", file);
  writeFileSync(path, content);
  utimesSync(path, time, time);
  const [, name] = /^([^.]+)\.(?:squashfs|erofs)$/.exec(file) ?? [];
  if (name !== undefined) trustByHand(join(dataDir, "modules"), name);
  settle();
}

/** As if nothing had changed for long, so that nothing is waited for. */
function settle(): void {
  utimesSync(join(dataDir, "modules"), ++clock, clock);
}

describe("a catalog", () => {
  it("is empty where there is no directory, and says how to make a base", async () => {
    const absent = new DirectoryCatalog(join(dataDir, "absent"), { defaultLayers: [] });
    expect(await absent.list()).toEqual([]);
    await expect(absent.resolve("a")).rejects.toMatchObject({ code: "module_not_found", message: /sq mkbase/ });
    await expect(absent.defaultLayers()).rejects.toMatchObject({ code: "module_not_found", message: /sq mkbase/ });
  });

  it("lists each module once, by name, in the format that is used", async () => {
    put("b.squashfs", "12345");
    put("a.squashfs", "12345");
    put("a.erofs", "123");
    put("c.erofs", "");
    expect(await catalog.list()).toMatchObject([
      { name: "a", size: 3, location: "local", format: "erofs", formats: ["squashfs", "erofs"], problem: null },
      { name: "b", size: 5, location: "local", format: "squashfs", formats: ["squashfs"], source: "a test" },
      { name: "c", size: 0, location: "local", format: "erofs", created: "2026-01-01T00:00:00Z" },
    ]);
  });

  it("takes the erofs image unless the squashfs one was made after it", async () => {
    put("a.squashfs", "s", 2_000);
    for (const [time, format] of [
      [2_001, "erofs"],
      [2_000, "erofs"],
      [1_999, "squashfs"],
    ] as const) {
      put("a.erofs", "e", time);
      expect([time, (await catalog.resolve("a")).format, (await catalog.list())[0]?.format]).toEqual([
        time,
        format,
        format,
      ]);
    }
  });

  it("leaves drafts, manifests and names that are none out", async () => {
    for (const file of [
      ".a.squashfs.0123456789ab",
      ".a.squashfs",
      "a.manifest.json",
      "-b.erofs",
      "c d.erofs",
      "e.img",
      ".erofs",
    ])
      put(file);
    expect(await catalog.list()).toEqual([]);
  });

  it("knows a module again, and tells that it was replaced", async () => {
    put("a.erofs", "one");
    const first = await catalog.resolve("a");
    expect(first).toMatchObject({ name: "a", image: "modules/a.erofs", format: "erofs" });
    expect(await catalog.resolve("a")).toEqual(first);
    put("a.erofs", "other");
    expect((await catalog.resolve("a")).identity).not.toBe(first.identity);
  });

  it("names near names for one that is missing", async () => {
    put("000-base-debian.erofs");
    await expect(catalog.resolve("base-debian")).rejects.toMatchObject({
      code: "module_not_found",
      message: /near names: 000-base-debian;/,
      details: { near: ["000-base-debian"] },
    });
  });
});

describe("what is no regular file", () => {
  it.each([
    ["a symbolic link", (path: string) => symlinkSync("/etc/passwd", path)],
    ["a symbolic link", (path: string) => symlinkSync("nowhere", path)],
    ["a directory", (path: string) => mkdirSync(path)],
    ["a special file", (path: string) => execFileSync("mkfifo", [path])],
  ])("is refused, and not listed: %s", async (kind, make) => {
    make(join(dataDir, "modules/a.erofs"));
    settle();
    await expect(catalog.resolve("a")).rejects.toMatchObject({
      code: "module_invalid",
      message: `Cannot use module "a": "modules/a.erofs" is ${kind}, needed is a regular file`,
    });
    expect(await catalog.list()).toEqual([]);
  });

  it("is refused even where the other format is a file", async () => {
    put("a.squashfs");
    symlinkSync("a.squashfs", join(dataDir, "modules/a.erofs"));
    settle();
    await expect(catalog.resolve("a")).rejects.toMatchObject({ code: "module_invalid" });
  });

  it("never leads out of the directory by its name", async () => {
    writeFileSync(join(dataDir, "outside.erofs"), "");
    await expect(catalog.resolve("../outside")).rejects.toMatchObject({ code: "invalid_request" });
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: fc.constantFrom(".", "/", "a", "-", "\0") }), async (name) => {
        await expect(catalog.resolve(name)).rejects.toMatchObject({ code: /^(invalid_request|module_not_found)$/ });
      }),
    );
  });
});

describe("the default layers", () => {
  it("are those of the configuration", async () => {
    const configured = new DirectoryCatalog(dataDir, { defaultLayers: ["b", "a"] });
    expect(await configured.defaultLayers()).toEqual(["b", "a"]);
  });

  it("are the customary base, else the first base", async () => {
    put("100-extra.erofs");
    await expect(catalog.defaultLayers()).rejects.toMatchObject({ code: "module_not_found" });
    put("000-base-void.erofs");
    expect(await catalog.defaultLayers()).toEqual(["000-base-void"]);
    put("000-base-busybox.squashfs");
    expect(await catalog.defaultLayers()).toEqual(["000-base-busybox"]);
    put("000-base-alpine.erofs");
    expect(await catalog.defaultLayers()).toEqual(["000-base-alpine"]);
  });

  it("follow the directory when it changes, also after it was remembered", async () => {
    put("000-b.erofs");
    expect(await catalog.defaultLayers()).toEqual(["000-b"]);
    writeFileSync(join(dataDir, "modules/000-a.erofs"), "");
    expect(await catalog.defaultLayers()).toEqual(["000-a"]);
    rmSync(join(dataDir, "modules/000-a.erofs"));
    expect(await catalog.defaultLayers()).toEqual(["000-b"]);
  });
});
