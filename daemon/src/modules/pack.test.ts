import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { packDirectory, packTar, refuseExisting, type PackOptions } from "./pack.js";
import type { RunTool } from "./run-tool.js";

let dataDir: string;
let source: string;
let programs: string[];

/** Packers that write their name into the image; unsquashfs makes a directory. */
const run: RunTool = ([program, ...args]) => {
  programs.push(program);
  const target = {
    mksquashfs: args[1],
    "mkfs.erofs": args.at(-2),
    sqfstar: args.find((arg) => arg.endsWith("image.squashfs")),
  }[program];
  if (target !== undefined) writeFileSync(target, `made by ${program}`);
  if (program === "unsquashfs" && !args.includes("-lln")) mkdirSync(args[args.indexOf("-dest") + 1]!);
  return Promise.resolve("");
};
const options = (more: Partial<PackOptions> = {}): PackOptions => ({
  dataDir,
  name: "000-x",
  builder: "a test",
  formats: ["squashfs", "erofs"],
  run,
  ...more,
});
const modules = (): string[] =>
  existsSync(join(dataDir, "modules")) ? readdirSync(join(dataDir, "modules")).toSorted() : [];
const content = (file: string): string => readFileSync(join(dataDir, "modules", file), "utf8");

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-pack-"));
  source = join(dataDir, "source");
  mkdirSync(source);
  programs = [];
});
afterEach(() => rmSync(dataDir, { recursive: true }));

describe("packDirectory()", () => {
  it("makes both images and a manifest that describes them, for all to read", async () => {
    const manifest = await packDirectory(source, options());
    expect(modules()).toEqual(["000-x.erofs", "000-x.manifest.json", "000-x.squashfs"]);
    for (const [file, { size, sha256 }] of Object.entries(manifest.files)) {
      const bytes = readFileSync(join(dataDir, "modules", file));
      expect([size, sha256]).toEqual([bytes.length, createHash("sha256").update(bytes).digest("hex")]);
    }
    expect(JSON.parse(content("000-x.manifest.json"))).toEqual(manifest);
    expect(manifest).toMatchObject({ schema: 1, name: "000-x", builder: "a test" });
    for (const file of modules()) expect(statSync(join(dataDir, "modules", file)).mode & 0o777).toBe(0o644);
  });

  it("refuses a name that is taken, before and after the work, unless it may replace", async () => {
    await packDirectory(source, options({ formats: ["erofs"] }));
    programs = [];
    await expect(packDirectory(source, options())).rejects.toMatchObject({
      code: "build_failed",
      message: /--force replaces it/,
    });
    expect(programs).toEqual([]);
    await packDirectory(source, options({ force: true, formats: ["squashfs"] }));
    expect(modules()).toEqual(["000-x.manifest.json", "000-x.squashfs"]);
    const late: RunTool = async (argv, more) => {
      writeFileSync(join(dataDir, "modules/000-y.erofs"), "another's");
      return run(argv, more);
    };
    await expect(packDirectory(source, options({ name: "000-y", run: late }))).rejects.toMatchObject({
      code: "build_failed",
    });
    expect(modules()).toEqual(["000-x.manifest.json", "000-x.squashfs", "000-y.erofs"]);
    expect(content("000-y.erofs")).toBe("another's");
  });

  it.each(["mksquashfs", "mkfs.erofs"])("leaves what there was when %s fails", async (failing) => {
    await packDirectory(source, options());
    const before = modules().map((file) => [file, content(file)]);
    const broken: RunTool = async (argv, more) => {
      await run(argv, more);
      if (argv[0] === failing) throw new SquashError("build_failed", "the disk is full");
      return "";
    };
    await expect(packDirectory(source, options({ force: true, run: broken }))).rejects.toThrow("the disk is full");
    expect(modules().map((file) => [file, content(file)])).toEqual(before);
  });

  it("leaves nothing when its caller gives up at the end", async () => {
    const giving = new AbortController();
    const last: RunTool = (argv, more) => {
      if (argv[0] === "mkfs.erofs") giving.abort();
      return run(argv, more);
    };
    await expect(packDirectory(source, options({ run: last, signal: giving.signal }))).rejects.toThrow();
    expect(modules()).toEqual([]);
  });

  it("refuses a name that is none", async () => {
    for (const name of ["../x", "", "-x"]) {
      await expect(packDirectory(source, options({ name }))).rejects.toMatchObject({ code: "invalid_request" });
    }
    expect(modules()).toEqual([]);
  });

  it("does not take a dangling link for a free name", async () => {
    mkdirSync(join(dataDir, "modules"));
    symlinkSync("nowhere", join(dataDir, "modules/000-x.erofs"));
    await expect(refuseExisting(dataDir, "000-x")).rejects.toMatchObject({ code: "build_failed" });
  });
});

describe("packTar()", () => {
  it("never unpacks the tar file itself", async () => {
    const path = join(dataDir, "x.tar");
    writeFileSync(path, "tar");
    await packTar({ path, facts: { devices: ["dev/null"], latestMtimeS: 1_706_933_106 } }, source, options());
    expect(programs).toEqual(["sqfstar", "unsquashfs", "unsquashfs", "mkfs.erofs"]);
    expect(content("000-x.squashfs")).toMatch(/^made by sqfstar\0/);
    expect(content("000-x.erofs")).toMatch(/^made by mkfs.erofs\0/);
  });
});
