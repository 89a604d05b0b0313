import { execFileSync, spawnSync } from "node:child_process";
import { linkSync, mkdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lacks } from "../../../test/support/needs.js";
import { useKernel } from "./test-kernel.js";

const origin = "trusted.overlay.origin";

/** Names of what has an attribute, below a directory, of links themselves. */
function having(name: string, directory: string): string[] {
  const argv = ["-R", "-P", "-h", "-n", name, "--absolute-names", directory];
  const { stdout: found } = spawnSync("getfattr", argv, { encoding: "utf8" }); // fails, as some have none
  return [...found.matchAll(/^# file: (.+)$/gm)].map(([, path = ""]) => path.slice(directory.length + 1)).toSorted();
}

function mark(...paths: readonly string[]): void {
  for (const path of paths) execFileSync("setfattr", ["-h", "-n", origin, "-v", "0x00fb1d0001", path]);
}

describe.skipIf(lacks("root"))("files of an upper that are to forget their originals", () => {
  const machine = useKernel();
  const path = join(machine.home, "upper");
  const data = join(path, "data");
  const outside = join(machine.home, "outside");

  beforeEach(async () => {
    for (const directory of [path, join(outside, "below")]) mkdirSync(directory, { recursive: true });
    await machine.kernel.mountUpper({ path, image: null, sizeBytes: 64 * 1_048_576, index: 3 });
  });
  afterEach(() => machine.kernel.unmountUpper(path));

  it("do, whatever they are, and directories do not, which overlayfs finds by name", async () => {
    const at = (name: string): string => join(data, name);
    mkdirSync(at("deep/er"), { recursive: true });
    for (const name of ["file", "deep/file", "deep/er/file", "deep/er/plain"]) writeFileSync(at(name), name);
    linkSync(at("file"), at("deep/twin"));
    symlinkSync("nowhere", at("link"));
    execFileSync("mkfifo", [at("pipe")]);
    execFileSync("mknod", [at("whiteout"), "c", "0", "0"]);
    const marked = ["file", "deep/file", "deep/er/file", "link", "pipe", "whiteout", "deep", "deep/er"];
    mark(...marked.map(at));
    execFileSync("setfattr", ["-n", "trusted.overlay.opaque", "-v", "y", at("deep")]);
    const before = statSync(at("deep/er/file"), { bigint: true });
    expect(having(origin, data)).toEqual([...marked, "deep/twin"].toSorted());
    await machine.kernel.forgetOrigins(path);
    expect(having(origin, data)).toEqual(["deep", "deep/er"]);
    expect(having("trusted.overlay.opaque", data)).toEqual(["deep"]);
    const after = statSync(at("deep/er/file"), { bigint: true });
    expect([after.mtimeNs, after.size, after.mode]).toEqual([before.mtimeNs, before.size, before.mode]);
    await machine.kernel.forgetOrigins(path);
  });

  it("lead nobody out by links", async () => {
    writeFileSync(join(outside, "file"), "");
    writeFileSync(join(outside, "below/file"), "");
    mark(join(outside, "file"), join(outside, "below/file"));
    symlinkSync(join(outside, "file"), join(data, "file"));
    symlinkSync(join(outside, "below"), join(data, "directory"));
    symlinkSync("../../../outside/below", join(data, "upwards"));
    await machine.kernel.forgetOrigins(path);
    expect(having(origin, outside)).toEqual(["below/file", "file"]);
  });

  it("are refused where they nest too deep, or are no upper's", async () => {
    await expect(machine.kernel.forgetOrigins(join(machine.home, "absent"))).rejects.toMatchObject({ code: "kernel" });
    await expect(machine.kernel.forgetOrigins("upper")).rejects.toMatchObject({ code: "kernel" });
    const script =
      'const fs = require("fs"); for (let i = 0; i < 2100; i++) { fs.mkdirSync("d"); process.chdir("d"); }';
    execFileSync(process.execPath, ["-e", script], { cwd: data });
    await expect(machine.kernel.forgetOrigins(path)).rejects.toMatchObject({
      message: expect.stringMatching(/nest deeper than 2048/) as string,
    });
  });
});
