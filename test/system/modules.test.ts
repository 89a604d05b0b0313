import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { isSquashError } from "@squash/sdk";
import type { Ended } from "../support/commands.js";
import { sendModule, trustByHand } from "../support/modules.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";

const squashd = useSquashd({ env: { SQUASH_MAX_UPLOAD_MB: "16", SQUASH_MODULE_FORMAT: "squashfs" } });
const folder = join(squashd.dataDir, "modules");
const home = mkdtempSync(join(tmpdir(), "squash-modules-"));
const base = "000-base-test";

afterAll(() => rmSync(home, { recursive: true, force: true }));

/** A squashfs image with one file, `/opt/<name>`. */
function pack(name: string, content: string | Buffer, options: readonly string[] = []): string {
  const root = mkdtempSync(join(home, "root-"));
  mkdirSync(join(root, "opt"));
  writeFileSync(join(root, "opt", name), content);
  const image = join(home, `${name}.squashfs`);
  rmSync(image, { force: true });
  const argv = [root, image, "-noappend", "-quiet", "-no-progress", "-all-root", ...options];
  execFileSync("mksquashfs", argv, { stdio: "ignore" });
  return image;
}

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

const push = (name: string, bytes: Buffer, options: Parameters<typeof sendModule>[3] = {}): Promise<string> =>
  sendModule(squashd.client, name, bytes, options);
const sq = (...args: string[]): Promise<Ended> => squashd.sq(...args);
const filesOf = (name: string): string[] =>
  readdirSync(folder)
    .filter((file) => file.includes(name))
    .toSorted();

/** What a create of a sandbox with that module comes to: what a file in it holds, or the error's code. */
async function tryModule(name: string): Promise<string> {
  try {
    await using sandbox = await squashd.client.create({ layers: [base, name] });
    return (await sandbox.exec(`cat /opt/*`)).stdout;
  } catch (error) {
    return isSquashError(error) ? `${error.code}: ${error.message}` : String(error);
  }
}

describe.skipIf(lacks("root"))("an uploaded module", () => {
  it("is listed, used and removed, through the SDK and through sq", async () => {
    const image = pack("100-pushed", "pushed\n");
    expect(await sq("module", "push", image, "--requires", base)).toMatchObject({ status: 0, stdout: "100-pushed\n" });
    expect(filesOf("100-pushed")).toEqual(["100-pushed.manifest.json", "100-pushed.squashfs"]);
    expect(await squashd.client.module("100-pushed")).toMatchObject({
      sha256: sha256(readFileSync(image)),
      source: "upload",
      requires: [base],
      used_by: [],
      problem: null,
    });
    expect((await sq("modules")).stdout).toMatch(/^100-pushed +4 KiB +squashfs +local +0 +upload$/m);
    expect((await sq("module", "show", "100-pushed")).stdout).toMatch(/^requires +000-base-test$/m);
    expect(await tryModule("100-pushed")).toBe("pushed\n");
    expect(await sq("module", "rm", "100-pushed")).toMatchObject({ status: 0, stdout: "100-pushed\n" });
    expect(filesOf("100-pushed")).toEqual([]);
    expect(await tryModule("100-pushed")).toMatch(/^module_not_found/);
    expect(await sq("module", "show", "100-pushed")).toMatchObject({ status: 1, stderr: /Cannot find module/ });
  });

  it("is neither removed nor replaced while a sandbox uses it", async () => {
    const [one, two] = ["one\n", "two\n"].map((text) => readFileSync(pack("100-used", text)));
    expect(await push("100-used", one!)).toBe("taken");
    expect(await push("100-used", two!)).toBe("module_exists");
    const sandbox = await squashd.client.create({ id: "user", layers: [base, "100-used"] });
    expect((await squashd.client.module("100-used")).used_by).toEqual(["user"]);
    await expect(squashd.client.removeModule("100-used")).rejects.toMatchObject({
      code: "module_in_use",
      details: { used_by: ["user"] },
    });
    expect(await push("100-used", two!, { replace: true })).toBe("module_in_use");
    expect((await sandbox.exec("cat /opt/*")).stdout).toBe("one\n");
    await sandbox.destroy();
    expect(await push("100-used", two!, { replace: true })).toBe("taken");
    expect(await tryModule("100-used")).toBe("two\n");
    await squashd.client.removeModule("100-used");
  });

  it("never goes while sandboxes are being made of it", async () => {
    const image = readFileSync(pack("100-race", "race\n"));
    for (let round = 0; round < 8; round++) {
      expect(await push("100-race", image, { replace: true })).toBe("taken");
      const making = Array.from({ length: 3 }, () => tryModule("100-race"));
      const removing = new Promise((done) => setTimeout(done, round)).then(() =>
        squashd.client.removeModule("100-race").then(
          () => true,
          () => false,
        ),
      );
      for (const made of await Promise.all(making)) expect(made).toMatch(/^race\n$|^module_not_found/);
      const removed = await removing;
      expect(filesOf("100-race")).toHaveLength(removed ? 0 : 2);
    }
    await squashd.client.removeModule("100-race").catch(() => undefined);
  });

  it("is not taken with another digest, as too large, or cut off, and leaves nothing", async () => {
    const image = readFileSync(pack("100-bad", randomBytes(300_000)));
    expect(await push("100-bad", image, { digest: "0".repeat(64) })).toBe("digest_mismatch");
    expect(await push("100-bad", Buffer.alloc(17 * 1_048_576))).toBe("body_too_large");
    expect(await push("100-bad", image.subarray(0, 200_000))).toBe("module_invalid");
    expect(await push("100-bad", Buffer.from("no image"))).toBe("module_invalid");
    expect(await push("../bad", image)).toBe("invalid_request");
    const absurd = Buffer.from(image);
    absurd.writeBigUInt64LE(2n ** 60n, 40);
    expect(await push("100-bad", absurd)).toBe("module_invalid");
    expect(filesOf("bad")).toEqual([]);
    expect((await squashd.client.health()).status).toBe("ok");
  });

  it("that breaks off leaves nothing", async () => {
    const image = readFileSync(pack("100-broken", randomBytes(300_000)));
    const socket = connect(join(squashd.home, "api.sock"));
    socket.on("error", () => undefined);
    const head = `PUT /v1/modules/100-broken?sha256=${sha256(image)} HTTP/1.1\r\nHost: localhost\r\n`;
    socket.write(`${head}Content-Type: application/octet-stream\r\nContent-Length: ${image.length}\r\n\r\n`);
    socket.write(image.subarray(0, 200_000));
    await expect.poll(() => filesOf("100-broken")).toHaveLength(1);
    socket.destroy();
    await expect.poll(() => filesOf("100-broken")).toEqual([]);
    expect(await push("100-broken", image)).toBe("taken");
    await squashd.client.removeModule("100-broken");
  });

  it("that was under way when squashd was killed leaves nothing after the next start", async () => {
    const socket = connect(join(squashd.home, "api.sock"));
    socket.on("error", () => undefined);
    const head = `PUT /v1/modules/100-killed?sha256=${"0".repeat(64)} HTTP/1.1\r\nHost: localhost\r\n`;
    socket.write(`${head}Content-Type: application/octet-stream\r\nContent-Length: 100000\r\n\r\nstart`);
    await expect.poll(() => filesOf("100-killed")).toHaveLength(1);
    await squashd.end("SIGKILL");
    await squashd.start();
    expect(filesOf("100-killed")).toEqual([]);
    socket.destroy();
  });

  it("with flipped bits is refused or harmless, and squashd goes on", async () => {
    const image = readFileSync(pack("100-flipped", randomBytes(20_000), ["-noD", "-noI"]));
    for (let round = 0; round < 12; round++) {
      const flipped = Buffer.from(image);
      const at = 96 + ((round * 7_919) % (image.length - 96));
      flipped.writeUInt8(flipped.readUInt8(at) ^ (1 << (round % 8)), at);
      if ((await push("100-flipped", flipped, { replace: true })) !== "taken") continue;
      await tryModule("100-flipped");
    }
    expect(await tryModule(base.replace("000-base-test", "100-extra"))).not.toMatch(/^[a-z_]+: /);
    await squashd.client.removeModule("100-flipped").catch(() => undefined);
  });
});

describe.skipIf(lacks("root"))("an image that was put there by hand", () => {
  it("is mounted only once it is trusted, and not when it is another one then", async () => {
    writeFileSync(join(folder, "100-hand.squashfs"), readFileSync(pack("100-hand", "by hand\n")));
    expect(await tryModule("100-hand")).toMatch(/^module_invalid: .*run "sq module trust 100-hand"/);
    expect((await squashd.client.module("100-hand")).problem).toMatch(/there is no "modules\/100-hand.manifest.json"/);
    expect(await sq("module", "trust", "100-hand")).toMatchObject({ status: 0, stdout: /source +trust/ });
    expect(await tryModule("100-hand")).toBe("by hand\n");
    // the very same bytes but for one, in the same file
    const image = readFileSync(join(folder, "100-hand.squashfs"));
    image.writeUInt8(image.readUInt8(200) ^ 1, 200);
    writeFileSync(join(folder, "100-hand.squashfs"), image);
    expect(await tryModule("100-hand")).toMatch(/^module_invalid: .*its sha-256 is [0-9a-f]{64}, its manifest says/);
    await squashd.client.removeModule("100-hand");
    expect(existsSync(join(folder, "100-hand.squashfs"))).toBe(false);
  });

  it("is stacked only with what it goes with", async () => {
    for (const [name, more] of [
      ["100-picky", { requires: ["100-extra", "999-absent"] }],
      ["100-rival", { conflicts: ["100-extra"] }],
    ] as const) {
      writeFileSync(join(folder, `${name}.squashfs`), readFileSync(pack(name, name)));
      trustByHand(folder, name, more);
    }
    await expect(squashd.client.create({ layers: [base, "100-picky"] })).rejects.toMatchObject({
      code: "module_requires",
      details: { missing: ["100-extra", "999-absent"] },
    });
    await expect(squashd.client.create({ layers: [base, "100-rival", "100-extra"] })).rejects.toMatchObject({
      code: "module_conflict",
    });
    expect(await tryModule("100-rival")).toBe("100-rival");
    expect(await squashd.client.list()).toEqual([]);
    for (const name of ["100-picky", "100-rival"]) await squashd.client.removeModule(name);
  });
});
