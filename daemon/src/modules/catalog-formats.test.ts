import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { trustByHand } from "../../../test/support/modules.js";
import { DirectoryCatalog } from "./catalog.js";

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "catalog-"));
  mkdirSync(join(home, "modules"));
});
afterEach(() => rmSync(home, { recursive: true }));

function put(file: string, seconds: number): void {
  const path = join(home, "modules", file);
  writeFileSync(path, "");
  utimesSync(path, seconds, seconds);
  trustByHand(join(home, "modules"), file.replace(/\..*$/, ""));
  utimesSync(join(home, "modules"), 1_000, 1_000); // nothing that is waited for
}

const ofOldKernel = (): DirectoryCatalog => new DirectoryCatalog(home, { defaultLayers: [], formats: ["erofs"] });

describe("A catalog on a kernel that can use erofs images only", () => {
  it("takes the erofs image though the squashfs one is newer", async () => {
    put("000-base.erofs", 1_000);
    put("000-base.squashfs", 2_000);
    expect(await ofOldKernel().resolve("000-base")).toMatchObject({ image: "modules/000-base.erofs" });
    expect(await new DirectoryCatalog(home, { defaultLayers: [] }).resolve("000-base")).toMatchObject({
      image: "modules/000-base.squashfs",
    });
  });

  it("says what a module lacks that has a squashfs image only, and does not list it", async () => {
    put("100-tool.squashfs", 1_000);
    expect(await ofOldKernel().list()).toEqual([]);
    await expect(ofOldKernel().resolve("100-tool")).rejects.toMatchObject({
      code: "module_invalid",
      message: /^Cannot use module "100-tool": this kernel needs an image of the format erofs; make one beside it/,
    });
  });

  it("says the same of the only base, instead that there is none", async () => {
    put("000-base.squashfs", 1_000);
    const [base] = await ofOldKernel().defaultLayers();
    await expect(ofOldKernel().resolve(base ?? "")).rejects.toMatchObject({ code: "module_invalid" });
    put("001-other.erofs", 1_000);
    put("000-second.erofs", 1_000);
    expect(await ofOldKernel().defaultLayers()).toEqual(["000-second"]);
  });
});

describe("A catalog that is told which format to use", () => {
  it("uses it where there is such an image, and the other where there is not", async () => {
    put("000-base.erofs", 1_000);
    put("000-base.squashfs", 2_000);
    put("100-tool.squashfs", 1_000);
    for (const [prefer, format] of [
      ["auto", "squashfs"],
      ["erofs", "erofs"],
      ["squashfs", "squashfs"],
    ] as const) {
      const catalog = new DirectoryCatalog(home, { defaultLayers: [], prefer });
      expect(await catalog.resolve("000-base")).toMatchObject({ format });
      expect(await catalog.resolve("100-tool")).toMatchObject({ format: "squashfs" });
    }
  });
});
