import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { mkbaseCommand } from "./mkbase-command.js";

let dataDir: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-mkbase-"));
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

async function mkbase(...args: string[]): Promise<{ status: number; out: string; err: string }> {
  let [out, err] = ["", ""];
  const io = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
  const status = await mkbaseCommand(args, io, { dataDir }, new AbortController().signal);
  return { status, out, err };
}

describe("squashd mkbase", () => {
  it("shows its usage when asked, and with an error for what it does not know", async () => {
    expect(await mkbase("--help")).toMatchObject({ status: 0, out: /^Usage: squashd mkbase/, err: "" });
    expect(await mkbase("busybox", "-h")).toMatchObject({ status: 0, err: "" });
    expect(await mkbase("fedora")).toMatchObject({
      status: 2,
      out: "",
      err: /no kind "fedora"[^]*Usage: squashd mkbase/,
    });
    expect(await mkbase()).toMatchObject({ status: 2 });
  });

  it("lists the bases", async () => {
    expect(await mkbase("list")).toMatchObject({ status: 0, out: "", err: /no base module yet/ });
    mkdirSync(join(dataDir, "modules"));
    writeFileSync(join(dataDir, "modules/000-a.erofs"), Buffer.alloc(1_048_576));
    writeFileSync(join(dataDir, "modules/100-b.erofs"), "");
    expect(await mkbase("list")).toEqual({ status: 0, out: "000-a  erofs 1.0 MiB\n", err: "" });
  });

  it("refuses a name that is taken before it does anything, and one that is none", async () => {
    mkdirSync(join(dataDir, "modules"));
    writeFileSync(join(dataDir, "modules/000-base-busybox.erofs"), "");
    expect(await mkbase("busybox")).toMatchObject({ status: 1, out: "", err: /exists, --force replaces it\n$/ });
    expect(await mkbase("busybox", "--name", "../x")).toMatchObject({ status: 1, err: /Cannot name a module/ });
    expect(readdirSync(dataDir)).toEqual(["modules"]);
  });

  it("sweeps what a killed one left a day ago, and tells", async () => {
    const old = join(dataDir, "cache/mkbase-aaaaaa");
    mkdirSync(join(old, "root"), { recursive: true });
    mkdirSync(join(dataDir, "cache/mkbase-bbbbbb"));
    utimesSync(old, 1_000, 1_000);
    const { err } = await mkbase("from-dir", join(dataDir, "absent"), "x");
    expect(err).toContain(`removed ${old}, which a killed mkbase had left\n`);
    expect(readdirSync(join(dataDir, "cache"))).toEqual(["mkbase-bbbbbb"]);
  });

  it("refuses directories that are none, and those around the data directory", async () => {
    writeFileSync(join(dataDir, "file"), "");
    expect(await mkbase("from-dir", join(dataDir, "absent"), "x")).toMatchObject({
      status: 1,
      err: /Cannot use directory/,
    });
    expect(await mkbase("from-dir", join(dataDir, "file"), "x")).toMatchObject({
      status: 1,
      err: /it is no directory/,
    });
    expect(await mkbase("from-dir", dataDir, "x")).toMatchObject({
      status: 1,
      err: /the data directory ".*" lies in it/,
    });
    expect(await mkbase("from-dir", "/", "x")).toMatchObject({ status: 1, err: /lies in it/ });
  });
});
