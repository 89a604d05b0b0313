import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { jobDone, print, randomModule, synced } from "../../support/s3/bucket-work.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

const base = ["000-base-test"];
const labels = ["a", "b", "c"];
const damaged = "sandboxes/box/snapshots/b.json";

describe.skipIf(lacks("root"))("a manifest that is damaged in the bucket", () => {
  let server: S3Server;
  let objects: RawObjects;
  let keeper: TestSquashd;
  let other: TestSquashd;
  let before: HostState;

  beforeAll(async () => {
    server = await S3Server.start();
    objects = new RawObjects(server);
    [keeper, other] = [squashdWithBucket(server), squashdWithBucket(server)];
    before = hostState([keeper.mark, other.mark]);
    for (const name of ["801-bad", "802-good"]) randomModule(keeper, name, 4_096);
    await other.start();
    await synced(other);
    await keeper.start();
    await synced(keeper);
    const sandbox = await keeper.client.create({ id: "box", layers: base });
    for (const label of labels) {
      await print(sandbox, `echo ${label} >>/f`);
      await sandbox.snapshot({ label }, { wait: "durable" });
    }
    await other.client.create({ id: "box", layers: base });
    for (const key of [damaged, "modules/801-bad.manifest.json"]) await objects.put(`team/${key}`, Buffer.from("{}"));
  });

  afterAll(async () => {
    await keeper[Symbol.asyncDispose]();
    await other[Symbol.asyncDispose]();
    objects[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
    expect(await settledState(before, [keeper.mark, other.mark])).toEqual(before);
  });

  it("is listed as that, beside all others", async () => {
    for (const list of [await keeper.client.bucketSnapshots("box"), await keeper.client.bucketSnapshots()]) {
      expect(list.map(({ label, problem }) => [label, problem === null])).toEqual([
        ["a", true],
        ["b", false],
        ["c", true],
      ]);
      expect(list[1]).toMatchObject({ created: null, problem: expect.stringContaining(damaged) as unknown });
    }
  });

  it("keeps no others from being fetched, and is told of", async () => {
    const problem = { state: "failed", code: "s3_failed", error: expect.stringContaining(damaged) as unknown };
    expect(await jobDone(other, { kind: "pull", sandbox: "box" })).toMatchObject(problem);
    const fetched = async (): Promise<string[]> =>
      (await other.client.sandbox("box").history()).map(({ label }) => label).toSorted();
    expect(await fetched()).toEqual(["a", "c"]);
    for (const label of ["a", "c"]) await other.client.sandbox("box").deleteSnapshot(label);
  });

  it("keeps a comparison from nothing else, and is told of", async () => {
    const sandbox = await keeper.client.create({ id: "goes-on", layers: base });
    await objects.put("team/sandboxes/goes-on/snapshots/bad.json", Buffer.from("{}"));
    await sandbox.snapshot({ label: "good" });
    const synced = await jobDone(keeper, { kind: "sync" });
    expect(synced).toMatchObject({ state: "failed", code: "s3_failed" });
    const said = synced.lines.join("\n");
    expect(said).toContain("modules/801-bad.manifest.json");
    expect(said).toContain("sandboxes/goes-on/snapshots/bad.json");
    expect(said).not.toContain("802-good");
    expect(
      (await keeper.client.bucketSnapshots("goes-on")).map(({ label, problem }) => [label, problem === null]),
    ).toEqual([
      ["bad", false],
      ["good", true],
    ]);
    const pulled = await jobDone(other, { kind: "pull" });
    expect(pulled.error).toContain("modules/801-bad.manifest.json");
    expect((await other.client.modules()).map(({ name }) => name)).toContain("802-good");
  });
});
