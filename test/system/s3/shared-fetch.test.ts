import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { jobDone, print, randomModule, synced, until } from "../../support/s3/bucket-work.js";
import { FaultProxy, type ActiveFault } from "../../support/s3/fault-proxy.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

const mib = 1_048_576;
const base = ["000-base-test"];
const slow = { kind: "latency", ms: 1_500 } as const;
const blobs = { method: "GET", path: /\/blobs\// } as const;

describe.skipIf(lacks("root"))("what two fetch from the bucket at the same time", () => {
  let server: S3Server;
  let proxy: FaultProxy;
  let keeper: TestSquashd;
  let other: TestSquashd;
  let before: HostState;
  let digest: string;

  beforeAll(async () => {
    server = await S3Server.start();
    proxy = await FaultProxy.start(server);
    keeper = squashdWithBucket(server);
    other = squashdWithBucket(server, { env: { SQUASH_S3_ENDPOINT: proxy.endpoint } });
    before = hostState([keeper.mark, other.mark]);
    digest = randomModule(keeper, "800-shared", 4 * mib);
    await keeper.start();
    await synced(keeper);
    await other.start();
    await synced(other);
    await other.client.removeModule("800-shared");
    const sandbox = await keeper.client.create({ id: "box", layers: base });
    for (const label of ["one", "two"]) {
      await print(sandbox, `echo ${label} >>/f; head -c ${mib} /dev/urandom >/data-${label}`);
      await sandbox.snapshot({ label }, { wait: "durable" });
    }
    await other.client.create({ id: "box", layers: base });
  });

  afterAll(async () => {
    await keeper[Symbol.asyncDispose]();
    await other[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
    expect(await settledState(before, [keeper.mark, other.mark])).toEqual(before);
  });

  const under = async (fault: ActiveFault): Promise<void> => until(async () => (await fault.count()).applied > 0);

  it("comes for the one though the other, who began it, is cancelled", async () => {
    await using fault = await proxy.inject(slow, blobs);
    const first = await other.client.startJob({ kind: "pull", module: "800-shared" });
    await under(fault);
    const create = other.client.create({ id: "wants", layers: ["800-shared", ...base] });
    await until(async () => (await other.client.jobs()).filter(({ kind }) => kind === "pull").length === 2);
    await other.client.removeJob(first.id);
    expect(await other.client.job(first.id)).toMatchObject({ state: "cancelled" });
    const sandbox = await create;
    expect((await print(sandbox, "sha256sum </opt/800-shared")).slice(0, 64)).toBe(digest);
    await sandbox.destroy();
    // it was not begun a second time
    expect((await fault.count()).applied).toBe(1);
  });

  it("does not come when all who want it are cancelled", async () => {
    await other.client.removeModule("800-shared");
    await using fault = await proxy.inject({ kind: "stall-response" }, blobs);
    const jobs = [];
    for (let count = 0; count < 2; count++)
      jobs.push(await other.client.startJob({ kind: "pull", module: "800-shared" }));
    await under(fault);
    for (const { id } of jobs) await other.client.removeJob(id);
    expect((await other.client.modules()).map(({ name }) => name)).not.toContain("800-shared");
    await fault[Symbol.asyncDispose]();
    expect(await jobDone(other, { kind: "pull", module: "800-shared" })).toMatchObject({ state: "done" });
  });

  it("replaces another module here for the one who asks for that, though the other, who began it, does not", async () => {
    await other.client.removeModule("800-shared");
    randomModule(other, "800-shared", 4_096);
    await using fault = await proxy.inject(slow, blobs);
    const first = jobDone(other, { kind: "pull", module: "800-shared" });
    await under(fault);
    expect(await jobDone(other, { kind: "pull", module: "800-shared", replace: true })).toMatchObject({
      state: "done",
    });
    expect(await first).toMatchObject({ code: "module_exists" });
    const [found] = (await other.client.bucketModules()).filter(({ name }) => name === "800-shared");
    expect(found).toMatchObject({ here: "same" });
  });

  it("is an image that two snapshots have in common, fetched once", async () => {
    await using fault = await proxy.inject(slow, blobs);
    const pulled = await Promise.all(
      ["one", "two"].map((label) => jobDone(other, { kind: "pull", sandbox: "box", label })),
    );
    expect(pulled.map(({ state, error }) => [state, error])).toEqual([
      ["done", null],
      ["done", null],
    ]);
    expect((await fault.count()).applied).toBeGreaterThan(0);
    await other.client.sandbox("box").restore("two");
    expect(await print(other.client.sandbox("box"), "cat /f")).toBe("one\ntwo\n");
  });
});
