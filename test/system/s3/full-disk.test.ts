import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { lacks } from "../../support/needs.js";
import { useSquashd } from "../../support/own-squashd.js";
import { halfPlaced, jobDone, mustDo, print, randomModule, synced, until } from "../../support/s3/bucket-work.js";
import { FaultProxy } from "../../support/s3/fault-proxy.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { bucketSettings, squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import { SmallDisk } from "../../support/small-disk.js";
import type { TestSquashd } from "../../support/squashd.js";

const mib = 1_048_576;
const base = ["000-base-test"];
const large = "800-large";

describe.skipIf(lacks("root"))("a full disk, where something is to come from the bucket", async () => {
  const server = await S3Server.start();
  const proxy = await FaultProxy.start(server);
  let disk: SmallDisk;
  let sender: TestSquashd;
  let digest: string;
  let fileDigest: string;
  const squashd = useSquashd({
    here: true,
    env: { ...bucketSettings(server), SQUASH_S3_ENDPOINT: proxy.endpoint, SQUASH_UPPER_LIMIT_MB: "16" },
    prepare: ({ dataDir }) => (disk = new SmallDisk(dataDir, 192)),
  });

  beforeAll(async () => {
    sender = squashdWithBucket(server);
    digest = randomModule(sender, large, 18 * mib);
    await sender.start();
    await synced(sender);
    const sandbox = await sender.client.create({ id: "box", layers: base });
    const sum = await print(sandbox, `head -c ${10 * mib} /dev/urandom >/data; sha256sum </data`);
    fileDigest = sum.slice(0, 64);
    await sandbox.snapshot({ label: "one" }, { wait: "durable" });
    await squashd.client.removeModule(large).catch(() => undefined); // it came with the first comparison, or did not
  });

  afterAll(async () => {
    await squashd.destroyAll();
    await sender[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  const parts = (): string[] => {
    const folder = join(squashd.dataDir, "cache/s3");
    return existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(".part")) : [];
  };

  function nothingLeft(): void {
    expect(parts()).toEqual([]);
    expect(halfPlaced(squashd)).toEqual([]);
    expect(existsSync(join(squashd.dataDir, "modules", `${large}.erofs`))).toBe(false);
  }

  it("is refused before anything has come, where it is known not to have room", async () => {
    disk.fill(70 * mib);
    const pulled = await jobDone(squashd, { kind: "pull", module: large });
    expect(pulled).toMatchObject({ code: "build_failed", error: expect.stringContaining("has no room") as unknown });
    disk.clear();
    nothingLeft();
  });

  it("leaves nothing where it becomes full meanwhile, and all works once there is room", async () => {
    const sandbox = await squashd.client.create({ id: "box", layers: base });
    {
      await using _slow = await proxy.inject({ kind: "latency", ms: 1_500 }, { method: "GET", path: /blobs/ });
      const failing = Promise.allSettled([jobDone(squashd, { kind: "pull", module: large }), sandbox.restore("one")]);
      await until(() => Promise.resolve(parts().length === 2));
      disk.fill(0);
      const [pulled, restored] = await failing;
      expect(pulled).toMatchObject({ value: { state: "failed", code: "build_failed" } });
      expect(pulled).toMatchObject({ value: { error: expect.stringContaining("ENOSPC") as unknown } });
      expect(restored).toMatchObject({ reason: { code: "build_failed" } });
    }
    nothingLeft();
    expect(await sandbox.history()).toEqual([]);
    disk.clear();
    await sandbox.restore("one");
    expect((await print(sandbox, "sha256sum </data")).slice(0, 64)).toBe(fileDigest);
    await mustDo(squashd, { kind: "pull", module: large });
    const wants = await squashd.client.create({ id: "wants", layers: [large, ...base] });
    expect((await print(wants, `sha256sum </opt/${large}`)).slice(0, 64)).toBe(digest);
  });
});
