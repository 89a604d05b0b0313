import { rmSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { print } from "../../support/crash-trials.js";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { idle, jobDone, until } from "../../support/s3/bucket-work.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server, type S3Place } from "../../support/s3/s3-server.js";
import { RadosGateway } from "../../support/s3/second-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

/** A store, and what tests do past squashd. */
interface Tried {
  readonly place: S3Place;
  /** bytes that the store got, or keeps more, by that */
  sentBy(work: () => Promise<unknown>): Promise<number>;
  /** Flips all bits of a byte of an object's content. */
  corrupt(key: string, offset: number): Promise<void>;
}

/** What holds of modules and snapshots in any S3. */
function keepsModulesAndSnapshots(start: () => Promise<Tried>): void {
  let store: Tried;
  let first: TestSquashd;
  let second: TestSquashd;
  let before: HostState;

  beforeAll(async () => {
    store = await start();
    [first, second] = [squashdWithBucket(store.place), squashdWithBucket(store.place)];
    before = hostState([first.mark, second.mark]);
    await first.start();
    await until(async () => (await first.client.bucket()).last_sync !== null);
  });

  afterAll(async () => {
    await first[Symbol.asyncDispose]();
    await second[Symbol.asyncDispose]();
    await store.place[Symbol.asyncDispose]();
    expect(await settledState(before, [first.mark, second.mark])).toEqual(before);
  });

  it("has what was here at the start, and is told of by sq", async () => {
    const names = (await first.client.modules()).map(({ name }) => name);
    const there = await first.client.bucketModules();
    expect(there.map(({ name, here }) => [name, here])).toEqual(names.map((name) => [name, "same"]));
    expect((await first.sq("s3")).stdout).toContain("test-bucket");
    expect((await first.sq("s3", "ls")).stdout).toContain("000-base-test");
  });

  it("gives another machine the modules that it needs, when it needs them", async () => {
    await second.start({ SQUASH_SYNC_INTERVAL: "0" });
    await until(async () => (await second.client.bucket()).last_sync !== null);
    for (const { name } of await second.client.modules()) await second.client.removeModule(name);
    expect(await second.client.modules()).toEqual([]);
    const sandbox = await second.client.create({ id: "fetched", layers: ["000-base-test", "100-extra"] });
    expect(await print(sandbox, "cat /opt/extra/file")).toBe("from the extra layer\n");
    expect((await second.client.jobs()).map(({ kind, module, state }) => [kind, module, state])).toContainEqual([
      "pull",
      "100-extra",
      "done",
    ]);
    await expect(second.client.create({ id: "none", layers: ["000-base-none"] })).rejects.toMatchObject({
      code: "module_not_found",
    });
    await sandbox.destroy();
  });

  it("keeps snapshots, of which another machine has exactly the files", async () => {
    const sandbox = await first.client.create({ id: "box", layers: ["000-base-test"] });
    await print(sandbox, "mkdir /w; echo one >/w/file; ln -s file /w/link; mkfifo /w/pipe; chmod 4751 /w/file");
    await sandbox.snapshot({ label: "one" }, { wait: "durable" });
    await sandbox.restore("one");
    await print(sandbox, "rm /w/link; echo two >/w/two");
    expect(await sandbox.snapshot({ label: "two" }, { wait: "durable" })).toMatchObject({ durable: true });
    const survey = "cd /w && stat -c '%n %f %s %h' * && cat file two";
    const wanted = await print(sandbox, survey);

    const other = await second.client.create({ id: "box", layers: ["000-base-test"] });
    await other.restore("two");
    expect(await print(other, survey)).toBe(wanted);
    expect((await other.history()).map(({ label, depth }) => [label, depth])).toEqual([["two", 2]]);
    expect(await jobDone(second, { kind: "pull", sandbox: "box" })).toMatchObject({ state: "done" });
    expect((await other.history()).map(({ label }) => label)).toEqual(["one", "two"]);
    await other.restore("one");
    expect(await print(other, "ls -A /w")).toBe("file\nlink\npipe\n");
    await other.destroy();
    await sandbox.destroy();
  });

  it("gets only what it does not have", async () => {
    const sandbox = await first.client.create({ id: "grows", layers: ["000-base-test"] });
    await print(sandbox, "head -c 60000000 /dev/urandom >/a; head -c 60000000 /dev/urandom >/z");
    await sandbox.snapshot({ label: "large" }, { wait: "durable" });
    await print(sandbox, "head -c 3000000 /dev/urandom >/m");
    const sent = await store.sentBy(() => sandbox.snapshot({ label: "more" }, { wait: "durable" }));
    expect(sent).toBeGreaterThan(3_000_000);
    expect(sent).toBeLessThan(25_000_000);
    await sandbox.restore("more");
    const again = await store.sentBy(() => sandbox.snapshot({ label: "same" }, { wait: "durable" }));
    expect(again).toBeLessThan(2_000_000);
    await sandbox.destroy();
  });

  it("is looked after: what nothing names goes, what is named is looked at", async () => {
    expect(await jobDone(first, { kind: "s3-verify", deep: true })).toMatchObject({ state: "done" });
    for (const { label } of await first.client.bucketSnapshots("grows"))
      await first.client.removeBucketSnapshot("grows", label);
    expect((await jobDone(first, { kind: "s3-gc", dry_run: true, grace_s: 0 })).step).toMatch(
      /^[1-9]\d* objects .* would be/,
    );
    expect((await jobDone(first, { kind: "s3-gc" })).step).toMatch(/^0 objects/);
    expect((await jobDone(first, { kind: "s3-gc", grace_s: 0 })).step).toMatch(/^[1-9]\d* objects .* were removed/);
    expect((await jobDone(first, { kind: "s3-gc", grace_s: 0 })).step).toMatch(/^0 objects/);
    expect(await jobDone(first, { kind: "s3-verify", deep: true })).toMatchObject({ state: "done" });
  });

  it("forgets a snapshot that is deleted, but not one of a sandbox that is destroyed", async () => {
    const sandbox = await first.client.create({ id: "brief", layers: ["000-base-test"] });
    await print(sandbox, "echo 1 >/f");
    await sandbox.snapshot({ label: "a" }, { wait: "durable" });
    await sandbox.snapshot({ label: "b" }, { wait: "durable" });
    await sandbox.deleteSnapshot("a");
    await idle(first);
    await sandbox.destroy();
    expect((await first.client.bucketSnapshots("brief")).map(({ label }) => label)).toEqual(["b"]);
  });

  it("never gives a module that is not what it was", async () => {
    const extra = (await first.client.bucketModules()).find(({ name }) => name === "100-extra");
    const blob = `team/blobs/sha256/${extra?.sha256?.slice(0, 2)}/${extra?.sha256}`;
    await store.corrupt(blob, 1_234);
    await second.client.removeModule("100-extra");
    await expect(second.client.create({ id: "bad", layers: ["000-base-test", "100-extra"] })).rejects.toMatchObject({
      code: "s3_object_invalid",
    });
    expect(readdirSync(join(second.dataDir, "modules")).filter((name) => name.includes("100-extra"))).toEqual([]);
    expect(await jobDone(first, { kind: "s3-verify" })).toMatchObject({ state: "done" });
    const verified = await jobDone(first, { kind: "s3-verify", deep: true });
    expect(verified).toMatchObject({ state: "failed", error: expect.stringContaining("100-extra") as unknown });
    await store.corrupt(blob, 1_234);
    rmSync(join(second.dataDir, "cache/s3"), { recursive: true });
    const sandbox = await second.client.create({ id: "good", layers: ["000-base-test", "100-extra"] });
    await sandbox.destroy();
  });
}

describe.skipIf(lacks("root"))("modules and snapshots in a bucket", () => {
  keepsModulesAndSnapshots(async () => {
    const place = await S3Server.start();
    const sentBy = async (work: () => Promise<unknown>): Promise<number> =>
      (await place.seenDuring(work)).reduce((sum, { bytesIn }) => sum + bytesIn, 0);
    return { place, sentBy, corrupt: (key, offset) => place.corrupt(key, offset) };
  });
});

describe.skipIf(lacks("root", "radosgw"))("modules and snapshots in a bucket of an S3 that others wrote", () => {
  keepsModulesAndSnapshots(async () => {
    const place = await RadosGateway.start();
    const objects = new RawObjects(place);
    const sentBy = async (work: () => Promise<unknown>): Promise<number> => {
      const before = await objects.bytes();
      await work();
      return (await objects.bytes()) - before;
    };
    return { place, sentBy, corrupt: (key, offset) => objects.corrupt(key, offset) };
  });
});
