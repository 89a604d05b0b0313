import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { halfPlaced, idle, jobDone, mustDo, print, randomModule, synced } from "../../support/s3/bucket-work.js";
import { patience } from "../../support/patience.js";
import { FaultProxy, type ActiveFault } from "../../support/s3/fault-proxy.js";
import type { Fault } from "../../support/s3/proxy/rules.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

const mib = 1_048_576;
const moduleBytes = 18 * mib;
const fileBytes = 6 * mib;
const base = ["000-base-test"];
const large = "500-large";
/** that a request may take until it is tried again */
const silenceS = Math.ceil(4 * patience);

describe.skipIf(lacks("root"))("a bucket that is reached by a bad way", () => {
  let server: S3Server;
  let proxy: FaultProxy;
  let objects: RawObjects;
  let squashd: TestSquashd;
  let other: TestSquashd;
  let box: Sandbox;
  let before: HostState;
  let digest: string;
  /** that of the file in the sandbox, and the label of the newest snapshot with it */
  let newest = { label: "", digest: "" };
  let takes = 0;

  beforeAll(async () => {
    server = await S3Server.start();
    proxy = await FaultProxy.start(server);
    objects = new RawObjects(server);
    const env = { SQUASH_S3_ENDPOINT: proxy.endpoint, SQUASH_S3_TIMEOUT_S: String(silenceS) };
    [squashd, other] = [squashdWithBucket(server, { env }), squashdWithBucket(server, { env })];
    before = hostState([squashd.mark, other.mark]);
    digest = randomModule(squashd, large, moduleBytes);
    await squashd.start();
    await synced(squashd);
    await other.start();
    await synced(other);
    box = await squashd.client.create({ id: "box", layers: base });
    await takeDurable();
  });

  afterAll(async () => {
    await squashd[Symbol.asyncDispose]();
    await other[Symbol.asyncDispose]();
    objects[Symbol.dispose]();
    await proxy[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
    expect(await settledState(before, [squashd.mark, other.mark])).toEqual(before);
  });

  /** Changes the sandbox's file, and takes a snapshot that the bucket has. */
  async function takeDurable(): Promise<void> {
    const label = `s${++takes}`;
    const sum = await print(box, `head -c ${fileBytes} /dev/urandom >/data; sha256sum </data`);
    newest = { label, digest: sum.slice(0, 64) };
    await box.snapshot({ label }, { wait: "durable" });
  }

  /** Takes the large module out of the bucket, so that it must be sent. */
  async function forgetModule(): Promise<void> {
    const module = (await squashd.client.bucketModules()).find(({ name }) => name === large);
    const blob = `team/blobs/sha256/${module?.sha256?.slice(0, 2)}/${module?.sha256}`;
    const keys = [`team/modules/${large}.manifest.json`, blob];
    // the tests' own client may have learnt another time before
    await objects.remove(...keys).catch(() => objects.remove(...keys));
  }

  async function pushAll(): Promise<void> {
    await Promise.all([mustDo(squashd, { kind: "push", module: large }), takeDurable()]);
  }

  /** Another machine gets the module by wanting a sandbox with it, and the snapshot by restoring it; both are as they were sent. */
  async function pullAll(): Promise<void> {
    await dropPulled();
    const wants = async (): Promise<void> => {
      const sandbox = await other.client.create({ id: "wants", layers: [large, ...base] });
      expect((await print(sandbox, `sha256sum </opt/${large}`)).slice(0, 64)).toBe(digest);
    };
    const restores = async (): Promise<void> => {
      const sandbox = await other.client.create({ id: "box", layers: base });
      await sandbox.restore(newest.label);
      expect((await print(sandbox, "sha256sum </data")).slice(0, 64)).toBe(newest.digest);
    };
    await Promise.all([wants(), restores()]);
  }

  async function dropPulled(): Promise<void> {
    await other.destroyAll();
    const isHere = (await other.client.modules()).some(({ name }) => name === large);
    if (isHere) await other.client.removeModule(large);
  }

  async function nothingHalf(): Promise<void> {
    expect([...halfPlaced(squashd), ...halfPlaced(other)]).toEqual([]);
    await idle(squashd);
    await idle(other);
  }

  const applied = async (fault: ActiveFault): Promise<number> => (await fault.count()).applied;

  it.each<[string, Fault, number]>([
    ["comes late", { kind: "latency", ms: 40 }, 1_000],
    ["is reset in the middle of a request", { kind: "reset-request", afterBytes: 100_000 }, 4],
    ["loses answers", { kind: "lose-response" }, 4],
    ["fails inside", { kind: "answer", status: 500, code: "InternalError" }, 4],
    ["has no time", { kind: "answer", status: 503, code: "SlowDown" }, 4],
    ["has writes meet", { kind: "answer", status: 409, code: "ConditionalRequestConflict" }, 2],
  ])("has what is sent though it %s", async (_name, fault, times) => {
    await forgetModule();
    const isConflict = fault.kind === "answer" && fault.status === 409;
    const which = fault.kind === "answer" && !isConflict ? {} : { method: "PUT" };
    const path = isConflict ? /manifest\.json|snapshots/ : /blobs|modules|snapshots/;
    await using active = await proxy.inject(fault, { ...which, path, skip: isConflict ? 0 : 1, times });
    await pushAll();
    expect(await applied(active)).toBeGreaterThanOrEqual(Math.min(times, 2));
    await active[Symbol.asyncDispose]();
    await nothingHalf();
    await mustDo(squashd, { kind: "s3-verify", deep: true });
  });

  it.each<[string, Fault, number]>([
    ["comes late", { kind: "latency", ms: 40 }, 1_000],
    ["is reset in the middle of an answer", { kind: "reset-response", afterBytes: 100_000 }, 4],
    ["breaks off in good order", { kind: "truncate", afterBytes: 100_000 }, 4],
    ["loses answers", { kind: "lose-response" }, 4],
    ["spoils bytes", { kind: "corrupt", offset: 90_000 }, 4],
    ["fails inside", { kind: "answer", status: 500, code: "InternalError" }, 4],
    ["has no time", { kind: "answer", status: 503, code: "SlowDown" }, 4],
  ])("gives what is asked for though it %s", async (_name, fault, times) => {
    await using active = await proxy.inject(fault, { method: "GET", path: /blobs/, skip: 1, times });
    await pullAll();
    expect(await applied(active)).toBeGreaterThanOrEqual(Math.min(times, 2));
    await nothingHalf();
  });

  it("gives nothing that is wrong each time", async () => {
    await dropPulled();
    const sandbox = await other.client.create({ id: "box", layers: base });
    await using active = await proxy.inject({ kind: "corrupt", offset: 90_000 }, { method: "GET", path: /blobs/ });
    const [pulled, missed, restored] = await Promise.allSettled([
      jobDone(other, { kind: "pull", module: large }),
      other.client.create({ id: "wants", layers: [large, ...base] }),
      sandbox.restore(newest.label),
    ]);
    const invalid = { code: "s3_object_invalid" };
    expect(pulled).toMatchObject({
      value: { ...invalid, state: "failed", error: expect.stringContaining("blobs/") as unknown },
    });
    expect(missed).toMatchObject({ reason: invalid });
    expect(restored).toMatchObject({ reason: invalid });
    expect(existsSync(join(other.dataDir, "modules", `${large}.erofs`))).toBe(false);
    expect((await other.client.list()).map(({ id }) => id)).toEqual(["box"]);
    expect(await sandbox.history()).toEqual([]);
    await nothingHalf();
    await active[Symbol.asyncDispose]();
    await pullAll();
  });

  it("does not keep anybody waiting for ever", async () => {
    await forgetModule();
    await dropPulled();
    const faults = await Promise.all([
      proxy.inject({ kind: "stall-request", afterBytes: 100_000 }, { method: "PUT", path: /partNumber=2/, times: 1 }),
      proxy.inject({ kind: "stall-response" }, { method: "PUT", path: /snapshots/, times: 1 }),
      proxy.inject({ kind: "stall-response", afterBytes: 100_000 }, { method: "GET", path: /blobs/, times: 1 }),
    ]);
    const restores = async (label: string, sum: string): Promise<void> => {
      const sandbox = await other.client.create({ id: "box", layers: base });
      await sandbox.restore(label);
      expect((await print(sandbox, "sha256sum </data")).slice(0, 64)).toBe(sum);
    };
    await Promise.all([restores(newest.label, newest.digest), pushAll()]);
    for (const fault of faults) {
      expect(await applied(fault)).toBe(1);
      await fault[Symbol.asyncDispose]();
    }
    await nothingHalf();
    await pullAll();
  });

  it("is reached by a clock that is wrong, or that is said", async () => {
    for (const skewMs of [20 * 60_000, -20 * 60_000]) {
      await server.set({ skewMs });
      await forgetModule();
      await pushAll();
    }
    await pullAll();
    await server.set({ skewMs: 0 });
    await pushAll();
    await nothingHalf();
  });

  it("goes on once credentials that had expired are good again", async () => {
    await forgetModule();
    await server.set({ access: [{ ...server.credentials, state: "expired" }] });
    expect(await jobDone(squashd, { kind: "push", module: large })).toMatchObject({ code: "s3_denied" });
    await expect(takeDurable()).rejects.toMatchObject({ code: "s3_denied", message: /renew the credentials/ });
    expect(await jobDone(other, { kind: "pull", module: large })).toMatchObject({ code: "s3_denied" });
    expect(await squashd.client.bucketQueue()).toMatchObject([{ code: "s3_denied", kind: "snapshot" }]);
    await server.set({ access: [server.credentials] });
    await idle(squashd);
    await mustDo(squashd, { kind: "push", module: large });
    await pullAll();
  });

  it("keeps what is to be sent while the bucket is gone", async () => {
    await server.set({ hasBucket: false });
    await expect(takeDurable()).rejects.toMatchObject({ code: "s3_failed", message: /NoSuchBucket/ });
    expect(await jobDone(other, { kind: "pull", module: large })).toMatchObject({ state: "failed", code: "s3_failed" });
    await expect(other.client.create({ id: "wants-more", layers: ["none", ...base] })).rejects.toMatchObject({
      code: "s3_failed",
    });
    await squashd.end("SIGKILL");
    await squashd.start();
    expect(await squashd.client.bucketQueue()).toMatchObject([{ kind: "snapshot", subject: `box@${newest.label}` }]);
    await server.set({ hasBucket: true });
    await idle(squashd);
    expect((await squashd.client.bucketSnapshots("box")).map(({ label }) => label)).toContain(newest.label);
    box = squashd.client.sandbox("box");
    await pullAll();
    await nothingHalf();
  });

  it("is out of reach, and nothing is lost", async () => {
    await proxy.cut();
    await expect(takeDurable()).rejects.toMatchObject({ code: "s3_unreachable" });
    expect(await jobDone(other, { kind: "pull", module: large })).toMatchObject({ code: "s3_unreachable" });
    await proxy.mend();
    await idle(squashd);
    await pullAll();
    await nothingHalf();
  });
});
