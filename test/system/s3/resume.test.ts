import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { halfPlaced, mustDo, print, randomModule, synced, until } from "../../support/s3/bucket-work.js";
import { patience } from "../../support/patience.js";
import { FaultProxy } from "../../support/s3/fault-proxy.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

const mib = 1_048_576;
/** 8 parts of 8 MiB, and one more */
const moduleBytes = 65 * mib;
const parts = 9;
/** on their way at a time */
const parallel = 6;
const timeoutMs = 120_000 * patience;
const large = "700-large";
const latency = { kind: "latency", ms: 400 } as const;

describe.skipIf(lacks("root"))("what is on its way to or from the bucket when squashd dies", () => {
  let server: S3Server;
  let proxy: FaultProxy;
  let objects: RawObjects;
  let squashd: TestSquashd;
  let before: HostState;
  let digest: string;

  beforeAll(async () => {
    server = await S3Server.start();
    proxy = await FaultProxy.start(server);
    objects = new RawObjects(server);
    squashd = squashdWithBucket(server, { env: { SQUASH_S3_ENDPOINT: proxy.endpoint } });
    before = hostState([squashd.mark]);
    await squashd.start();
    await synced(squashd);
    await squashd.end();
    digest = randomModule(squashd, large, moduleBytes);
  });

  afterAll(async () => {
    await squashd[Symbol.asyncDispose]();
    objects[Symbol.dispose]();
    await proxy[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
    expect(await settledState(before, [squashd.mark])).toEqual(before);
  });

  it(
    "is sent by the next squashd, but for the parts that have arrived",
    async () => {
      const before = (await server.seen()).length;
      const arrived = async (): Promise<number> =>
        (await server.seen(before)).filter(({ operation, status }) => operation === "UploadPart" && status === 200)
          .length;
      {
        await using _slow = await proxy.inject(latency, { method: "PUT", path: /partNumber/ });
        await squashd.start(); // which compares all with the bucket
        await until(async () => (await arrived()) >= 3);
        await squashd.end("SIGKILL");
        await new Promise((resolve) => setTimeout(resolve, 3 * latency.ms)); // for what is under way in the proxy
      }
      const first = await arrived();
      expect(first).toBeLessThan(parts);
      expect(await objects.keys(`team/modules/${large}`)).toEqual([]);
      await squashd.start();
      await synced(squashd);
      const second = (await arrived()) - first;
      expect(second).toBeGreaterThan(0);
      // what had arrived when it died, but was not noted yet, is sent twice
      expect(first + second).toBeLessThanOrEqual(parts + parallel);
      expect(second).toBeLessThan(parts);
      expect(await objects.uploads()).toBe(0);
      await mustDo(squashd, { kind: "s3-verify", deep: true });
    },
    timeoutMs,
  );

  it(
    "is fetched by the next squashd, but for the bytes that have come",
    async () => {
      await squashd.client.removeModule(large);
      const from = (await server.seen()).length;
      const fetched = async (): Promise<number> =>
        (await server.seen(from))
          .filter(({ operation, key }) => operation === "GetObject" && key.includes("blobs/"))
          .reduce((sum, { bytesOut }) => sum + bytesOut, 0);
      {
        await using _slow = await proxy.inject(latency, { method: "GET", path: /blobs/ });
        const { id } = await squashd.client.startJob({ kind: "pull", module: large });
        await until(async () => ((await squashd.client.job(id)).fraction ?? 0) >= 0.2);
        await squashd.end("SIGKILL");
        await new Promise((resolve) => setTimeout(resolve, 3 * latency.ms)); // for what is under way in the proxy
      }
      const first = await fetched();
      expect(first).toBeLessThan(moduleBytes);
      await squashd.start();
      expect((await squashd.client.modules()).map(({ name }) => name)).not.toContain(large);
      const sandbox = await squashd.client.create({ id: "wants", layers: [large, "000-base-test"] });
      expect((await print(sandbox, `sha256sum </opt/${large}`)).slice(0, 64)).toBe(digest);
      const second = (await fetched()) - first;
      expect(second).toBeLessThan(moduleBytes - 8 * mib);
      expect(first + second).toBeLessThan(moduleBytes + (parallel + 1) * 8 * mib);
      expect(halfPlaced(squashd)).toEqual([]);
      await sandbox.destroy();
    },
    timeoutMs,
  );
});
