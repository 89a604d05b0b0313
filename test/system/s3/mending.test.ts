import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { jobDone, mustDo, print, randomModule, synced } from "../../support/s3/bucket-work.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

const mib = 1_048_576;
const base = ["000-base-test"];

describe.skipIf(lacks("root")).each(["as it is", "encrypted"])(
  "what is damaged in a bucket that is kept %s",
  (form) => {
    const folder = mkdtempSync(join(tmpdir(), "sqt-mend-"));
    let server: S3Server;
    let objects: RawObjects;
    let keeper: TestSquashd;
    let other: TestSquashd;
    let before: HostState;
    const digests = new Map<string, string>();

    beforeAll(async () => {
      server = await S3Server.start();
      objects = new RawObjects(server);
      const key = join(folder, "key");
      writeFileSync(key, randomBytes(32), { mode: 0o600 });
      const env: Record<string, string> = form === "encrypted" ? { SQUASH_S3_KEY_FILE: key } : {};
      [keeper, other] = [squashdWithBucket(server, { env }), squashdWithBucket(server, { env })];
      before = hostState([keeper.mark, other.mark]);
      // of one object that is sent at once, of one that is sent in parts, and of a name that begins as few do
      for (const [name, bytes] of [
        ["_small", mib],
        ["large", 18 * mib],
      ] as const)
        digests.set(name, randomModule(keeper, name, bytes));
      await keeper.start();
      await synced(keeper);
      await other.start();
      await synced(other);
      for (const name of digests.keys()) await other.client.removeModule(name);
    });

    afterAll(async () => {
      await keeper[Symbol.asyncDispose]();
      await other[Symbol.asyncDispose]();
      objects[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true });
      expect(await settledState(before, [keeper.mark, other.mark])).toEqual(before);
    });

    /** Changes a byte of each, and no size. */
    async function damageBlobs(keys: readonly string[]): Promise<void> {
      for (const key of keys) {
        const content = await objects.get(key);
        const at = Math.floor(content.length * 0.6);
        content[at] = (content[at] ?? 0) ^ 32;
        await objects.put(key, content);
      }
    }

    /** Keys of the blobs that are sent while something is done. */
    async function sentBy(work: () => Promise<unknown>): Promise<string[]> {
      const there = new Set(await objects.keys("team/blobs/"));
      await work();
      return (await objects.keys("team/blobs/")).filter((key) => !there.has(key));
    }

    async function blobsOf(name: string): Promise<string[]> {
      await keeper.client.removeBucketModule(name);
      await mustDo(keeper, { kind: "s3-gc", grace_s: 0 });
      return sentBy(() => mustDo(keeper, { kind: "push", module: name }));
    }

    it.each(["_small", "large"])(
      "is named with what mends it, and mended by that, where it is module %s",
      async (name) => {
        const blobs = await blobsOf(name);
        expect(blobs.length).toBeGreaterThan(0);
        await damageBlobs(blobs);
        const found = await jobDone(keeper, { kind: "s3-verify", deep: true });
        expect(found).toMatchObject({ state: "failed", code: "s3_failed" });
        for (const key of blobs) expect(found.lines.join("\n")).toContain(`"${key.slice("team/".length)}"`);
        expect(found.error).toContain(`sq push module ${name} --replace`);
        // its size is what it was, so that it counts as sent
        await mustDo(keeper, { kind: "push", module: name });
        expect(await jobDone(other, { kind: "pull", module: name })).toMatchObject({ code: "s3_object_invalid" });
        await mustDo(keeper, { kind: "push", module: name, replace: true });
        await mustDo(keeper, { kind: "s3-verify", deep: true });
        await mustDo(other, { kind: "pull", module: name });
        const sandbox = await other.client.create({ id: "reads", layers: [name, ...base] });
        expect((await print(sandbox, `sha256sum </opt/${name}`)).slice(0, 64)).toBe(digests.get(name));
        await sandbox.destroy();
      },
    );

    it("is named with what mends it, and mended by that, where it is a snapshot, or its manifest", async () => {
      const sandbox = await keeper.client.create({ id: "box", layers: base });
      const blobs = await sentBy(async () => {
        for (const label of ["one", "two"]) {
          await print(sandbox, `head -c ${3 * mib} /dev/urandom >/data-${label}`);
          await sandbox.snapshot({ label }, { wait: "durable" });
        }
      });
      const wanted = await print(sandbox, "cat /data-* | sha256sum");
      await damageBlobs(blobs);
      const manifest = "team/sandboxes/box/snapshots/two.json";
      const found = await jobDone(keeper, { kind: "s3-verify", deep: true });
      for (const key of blobs) expect(found.lines.join("\n")).toContain(`"${key.slice("team/".length)}"`);
      expect(found.lines.join("\n")).toMatch(/to mend it: sq push snapshots box (one|two) --replace\): /);
      await damageBlobs([manifest]);
      expect((await jobDone(keeper, { kind: "s3-verify" })).error).toContain("sq push snapshots box two --replace");
      expect(await jobDone(keeper, { kind: "push", sandbox: "box", label: "two" })).toMatchObject({
        code: "s3_object_invalid",
      });
      const sent = await server.seenDuring(() => mustDo(keeper, { kind: "push", sandbox: "box", replace: true }));
      await mustDo(keeper, { kind: "s3-verify", deep: true });
      // what both snapshots have in common is sent once
      const puts = sent.filter(({ operation, key }) => operation === "PutObject" && key.includes("/blobs/"));
      expect(puts).toHaveLength(new Set(puts.map(({ key }) => key)).size);
      expect(puts.map(({ key }) => key)).toEqual(expect.arrayContaining([...blobs]));
      await other.client.create({ id: "box", layers: base });
      await mustDo(other, { kind: "pull", sandbox: "box" });
      await other.client.sandbox("box").restore("two");
      expect(await print(other.client.sandbox("box"), "cat /data-* | sha256sum")).toBe(wanted);
    });

    it("is sent anew only where it is said what", async () => {
      expect(
        await keeper.client.startJob({ kind: "push", replace: true }).catch((error: unknown) => error),
      ).toMatchObject({ code: "invalid_request" });
    });
  },
);
