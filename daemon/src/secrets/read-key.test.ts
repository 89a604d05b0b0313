import { chmodSync, chownSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readKey, readKeyIfThere } from "./read-key.js";

const key = Buffer.from("ffeeddccbbaa99887766554433221100".repeat(2), "hex");
const base64 = key.toString("base64");

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "read-key-"));
  path = join(folder, "key");
});
afterEach(() => rmSync(folder, { recursive: true }));

function put(content: string | Buffer): void {
  writeFileSync(path, content, { mode: 0o600 });
}

describe("the file of a key", () => {
  it.each<[string, string | Buffer]>([
    ["the bytes themselves", key],
    ["hexadecimal digits", key.toString("hex")],
    ["capital ones, and the end of a line", `${key.toString("hex").toUpperCase()}\n`],
    ["base64, and the end of a line", `${base64}\n`],
  ])("may hold %s", async (_name, content) => {
    put(content);
    expect(await readKey(path)).toEqual(key);
    expect(await readKeyIfThere(path)).toEqual(key);
  });

  it.each<[string, string | Buffer]>([
    ["nothing", ""],
    ["a byte less", key.subarray(1)],
    ["a byte more", Buffer.concat([key, Buffer.alloc(1)])],
    ["a digit less", key.toString("hex").slice(1)],
    ["base64 without its end", base64.slice(0, -1)],
    ["base64 with what is no base64 in it", `${base64.slice(0, 20)}!${base64.slice(20)}`],
    ["base64 in two lines", `${base64.slice(0, 20)}\n${base64.slice(20)}`],
    ["base64 whose last bits are of no byte", `${base64.slice(0, -2)}B=`],
    ["base64 for addresses", base64.replaceAll("/", "_").replaceAll("+", "-")],
    ["a password", "correct horse battery staple\n"],
  ])("may not hold %s", async (_name, content) => {
    put(content);
    await expect(readKey(path)).rejects.toMatchObject({
      code: "secrets_unusable",
      message: expect.stringContaining(`Cannot use ${path}: it is no key of 32 bytes`) as unknown,
    });
    const shown = String(content).trim();
    if (shown !== "") await expect(readKey(path)).rejects.not.toThrow(shown);
  });

  it("may be read by its owner alone", async () => {
    put(key);
    for (const mode of [0o640, 0o604, 0o620]) {
      chmodSync(path, mode);
      await expect(readKey(path)).rejects.toThrow(`its mode ${mode.toString(8)} lets others read or write it`);
    }
  });

  it.skipIf(process.getuid?.() !== 0)("is not another user's", async () => {
    put(key);
    chownSync(path, 1_234, 0);
    await expect(readKey(path)).rejects.toThrow("it belongs to user 1234");
  });

  it("is no link, and is there", async () => {
    symlinkSync(join(folder, "elsewhere"), path);
    await expect(readKey(path)).rejects.toThrow("it is a symbolic link");
    rmSync(path);
    await expect(readKey(path)).rejects.toThrow("there is no such file; if there never was one");
    expect(await readKeyIfThere(path)).toBeNull();
  });
});
