import { randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { idle, jobDone, mustDo, print, randomModule, synced } from "../../support/s3/bucket-work.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

const base = ["000-base-test"];
const canary = `canary-${randomBytes(8).toString("hex")}`;
const large = "600-large";

describe.skipIf(lacks("root"))("a bucket that is encrypted with a key of ours", () => {
  const folder = mkdtempSync(join(tmpdir(), "sqt-key-"));
  let server: S3Server;
  let objects: RawObjects;
  let first: TestSquashd;
  let second: TestSquashd;
  let digest: string;
  let before: HostState;
  const squashds: TestSquashd[] = [];

  function keyFile(name: string, content: string | Buffer): string {
    const path = join(folder, name);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  }

  function machine(key: string): TestSquashd {
    const keys: Record<string, string> = key === "" ? {} : { SQUASH_S3_KEY_FILE: key };
    const env = { SQUASH_EPHEMERAL: "1", SQUASH_CHECKPOINT_INTERVAL: "3600", ...keys };
    const squashd = squashdWithBucket(server, { env });
    squashds.push(squashd);
    return squashd;
  }

  beforeAll(async () => {
    server = await S3Server.start();
    objects = new RawObjects(server);
    const key = randomBytes(32);
    first = machine(keyFile("key", key));
    second = machine(keyFile("key.hex", `${key.toString("hex")}\n`));
    before = hostState([first.mark, second.mark]);
    digest = randomModule(first, large, 10 * 1_048_576);
    await first.start();
    await synced(first);
    await second.start();
    await synced(second);
  });

  afterAll(async () => {
    for (const squashd of squashds) await squashd[Symbol.asyncDispose]();
    objects[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
    expect(await settledState(before, [first.mark, second.mark])).toEqual(before);
  });

  it("holds modules, snapshots and sandboxes that other machines with the key have as they were", async () => {
    const sandbox = await first.client.create({ id: "walks", layers: [large, ...base], owner: canary, task: canary });
    await print(sandbox, `mkdir /w; echo ${canary} >/w/file; head -c 3000000 /dev/zero >/w/zero`);
    await sandbox.snapshot({ label: "mine", by: canary }, { wait: "durable" });
    await sandbox.destroy();
    await second.client.removeModule(large);
    await mustDo(second, { kind: "pull", module: large });
    const again = await second.client.create({ id: "walks" });
    expect(await print(again, "cat /w/file")).toBe(`${canary}\n`);
    expect((await print(again, `sha256sum </opt/${large}`)).slice(0, 64)).toBe(digest);
    await again.restore("mine");
    expect(await print(again, "cat /w/file")).toBe(`${canary}\n`);
    await again.destroy();
    await idle(first);
    expect(await first.client.bucket()).toMatchObject({ encrypted: true });
    await mustDo(first, { kind: "s3-verify", deep: true });
    await mustDo(second, { kind: "s3-gc", grace_s: 0 });
    await mustDo(second, { kind: "s3-verify", deep: true });
  });

  it("tells nothing of what they hold, but for the names of modules, sandboxes and snapshots, which are keys", async () => {
    const keys = await objects.keys();
    expect(keys.length).toBeGreaterThan(6);
    const plain = [canary, large, "000-base-test", "from the extra layer", "BusyBox", "/opt/", '"schema"', '"sha256"'];
    const digests = (await first.client.bucketModules()).map(({ sha256 }) => sha256 ?? "");
    for (const key of keys) {
      const content = await objects.get(key);
      for (const text of [...plain, ...digests])
        expect({ key, text, is: content.includes(text) }).toMatchObject({ is: false });
      for (const sha256 of digests) expect(key).not.toContain(sha256);
    }
  });

  it("is of no use without the key or with another, and nothing in it is changed then", async () => {
    const keys = await objects.keys();
    const cases: [TestSquashd, RegExp][] = [
      [
        machine(keyFile("another", randomBytes(32))),
        /it was not encrypted with the key of SQUASH_S3_KEY_FILE, or is damaged/,
      ],
      [machine(""), /it is encrypted, and SQUASH_S3_KEY_FILE is not set/],
    ];
    for (const [stranger, text] of cases) {
      await stranger.start();
      const refusal = { code: "s3_object_invalid", message: text };
      expect(await jobDone(stranger, { kind: "pull", module: large })).toMatchObject({
        code: "s3_object_invalid",
        error: text,
      });
      await expect(stranger.client.create({ id: "walks" })).rejects.toMatchObject(refusal);
      await expect(stranger.client.create({ id: "x", layers: [large, ...base] })).rejects.toMatchObject(refusal);
      expect(await jobDone(stranger, { kind: "push", module: "000-base-test" })).toMatchObject({
        code: "s3_object_invalid",
      });
      expect(await jobDone(stranger, { kind: "s3-gc", grace_s: 0 })).toMatchObject({ code: "s3_object_invalid" });
      expect(await stranger.client.list()).toEqual([]);
    }
    // that a sandbox was to be made is noted before it is known what of
    expect((await objects.keys()).filter((key) => !key.startsWith("team/sandboxes/x/"))).toEqual(keys);
  });

  it("is not used at all with a key file that others may read, or that holds no key", async () => {
    const open = keyFile("open", randomBytes(32));
    chmodSync(open, 0o644);
    for (const [path, text] of [
      [open, "its mode 644 lets others read or write it"],
      [keyFile("short", "too short"), "it is no key of 32 bytes"],
      [join(folder, "none"), "there is no such file"],
    ] as const) {
      const squashd = squashdWithBucket(server, { env: { SQUASH_S3_KEY_FILE: path } });
      await expect(squashd.start()).rejects.toThrow(`SQUASH_S3_KEY_FILE: Cannot use ${path}: ${text}`);
      rmSync(squashd.home, { recursive: true });
    }
  });
});
