import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { print } from "../../support/crash-trials.js";
import { killInit } from "../../support/kill-init.js";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { until as comesAbout } from "../../support/s3/bucket-work.js";
import { FaultProxy } from "../../support/s3/fault-proxy.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

const leaseS = 8;

const until = (condition: () => Promise<boolean>): Promise<void> => comesAbout(condition, 30);

describe.skipIf(lacks("root"))("sandboxes that the bucket keeps", () => {
  let server: S3Server;
  let proxy: FaultProxy;
  let first: TestSquashd;
  let second: TestSquashd;
  let objects: RawObjects;
  let before: HostState;

  beforeAll(async () => {
    server = await S3Server.start();
    objects = new RawObjects(server);
    proxy = await FaultProxy.start(server);
    const env = { SQUASH_EPHEMERAL: "1", SQUASH_LEASE_S: String(leaseS), SQUASH_CHECKPOINT_INTERVAL: "1" };
    first = squashdWithBucket(server, { env: { ...env, SQUASH_S3_ENDPOINT: proxy.endpoint } });
    second = squashdWithBucket(server, { env });
    before = hostState([first.mark, second.mark]);
    await Promise.all([first.start(), second.start()]);
  });

  afterAll(async () => {
    await first[Symbol.asyncDispose]();
    await second[Symbol.asyncDispose]();
    objects[Symbol.dispose]();
    await proxy[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
    expect(await settledState(before, [first.mark, second.mark])).toEqual(before);
  });

  it("go on with all their files on another machine, once they are destroyed on one", async () => {
    const sandbox = await first.client.create({ id: "walks", layers: ["000-base-test", "100-extra"], memory_mb: 300 });
    await print(sandbox, "mkdir /w; echo kept >/w/file; rm /opt/extra/file; chmod 4751 /w/file");
    await sandbox.destroy();
    const again = await second.client.create({ id: "walks" });
    expect(await print(again, "cat /w/file; stat -c %a /w/file; ls /opt/extra")).toBe("kept\n4751\nbin\n");
    expect(await again.info()).toMatchObject({ memory_mb: 300, layers: ["100-extra", "000-base-test"] });
    await print(again, "echo more >>/w/file");
    await again.destroy();
    const back = await first.client.create({ id: "walks" });
    expect(await print(back, "cat /w/file")).toBe("kept\nmore\n");
    await back.destroy();
  });

  it("are saved by a destroy that comes while they are rebuilt", async () => {
    for (let round = 1; round <= 5; round++) {
      const sandbox = await first.client.create({ id: "dies", layers: ["000-base-test"] });
      await print(sandbox, "echo line >>/f");
      killInit(await sandbox.info());
      await until(async () => (await sandbox.info()).state !== "ready" || (await sandbox.info()).restarts > 0);
      await sandbox.destroy();
      const again = await second.client.create({ id: "dies" });
      expect(await print(again, "cat /f")).toBe("line\n".repeat(round));
      await again.destroy();
    }
  });

  it("begin anew where the first create failed, of which nothing is kept", async () => {
    const failing = { id: "fails", layers: ["none-such", "000-base-test"], memory_mb: 300, task: "the first" };
    await expect(first.client.create(failing)).rejects.toMatchObject({ code: "module_not_found" });
    const manifest = JSON.parse((await objects.get("team/sandboxes/fails/manifest.json")).toString()) as object;
    expect(manifest).toMatchObject({ lease: null, sandbox: null });
    const anew = await second.client.create({ id: "fails", layers: ["000-base-test"] });
    expect(await anew.info()).toMatchObject({ layers: ["000-base-test"], task: "" });
    await print(anew, "echo kept >/f");
    await anew.destroy();
    // what was kept before a create that fails is kept after it
    {
      const denied = { kind: "answer", status: 403, code: "AccessDenied" } as const;
      await using _fault = await proxy.inject(denied, { method: "GET", path: /fails\/snapshots\// });
      await expect(first.client.create({ id: "fails" })).rejects.toMatchObject({ code: "s3_denied" });
    }
    expect(await print(await first.client.create({ id: "fails" }), "cat /f")).toBe("kept\n");
    await first.client.sandbox("fails").destroy();
  });

  it("run on one machine at a time", async () => {
    const sandbox = await first.client.create({ id: "one", layers: ["000-base-test"] });
    await expect(second.client.create({ id: "one" })).rejects.toMatchObject({ code: "sandbox_leased" });
    await sandbox.destroy();
    await expect(first.client.removeBucketSandbox("one")).resolves.toBeUndefined();
    const anew = await second.client.create({ id: "one", layers: ["000-base-test"] });
    await expect(first.client.removeBucketSandbox("one")).rejects.toMatchObject({ code: "sandbox_leased" });
    await anew.destroy();
  });

  it("stay where they are while the bucket cannot be reached", async () => {
    const sandbox = await first.client.create({ id: "stays", layers: ["000-base-test"] });
    await print(sandbox, "echo 1 >/f");
    {
      await using fault = await proxy.inject({ kind: "answer", status: 403, code: "AccessDenied" }, { method: "PUT" });
      await expect(sandbox.destroy()).rejects.toMatchObject({ code: "s3_denied" });
      expect((await fault.count()).applied).toBeGreaterThan(0);
    }
    expect(await print(sandbox, "cat /f")).toBe("1\n");
    await sandbox.destroy();
  });

  it("go on elsewhere from the last time they were saved, when a machine dies", async () => {
    const sandbox = await first.client.create({ id: "falls", layers: ["000-base-test"] });
    await print(sandbox, "echo saved >/f");
    await until(async () => (await first.client.bucketSnapshots("falls")).length > 0);
    await sandbox.snapshot({ label: "mine" }, { wait: "durable" });
    const { pid } = await sandbox.info();
    await first.end("SIGKILL");
    await expect(second.client.create({ id: "falls" })).rejects.toMatchObject({ code: "sandbox_leased" });
    let again: Sandbox | null = null;
    await until(async () => {
      again = await second.client.create({ id: "falls" }).catch(() => null);
      return again !== null;
    });
    // what ran there has ended by itself before
    expect(() => process.kill(pid ?? 0, 0)).toThrow("ESRCH");
    expect(await print(second.client.sandbox("falls"), "cat /f; echo second >/f")).toBe("saved\n");
    // the one that comes back from the dead does not have it any more
    await first.start();
    expect((await first.client.list()).map(({ id }) => id)).not.toContain("falls");
    await second.client.sandbox("falls").destroy();
    expect(await print(await first.client.create({ id: "falls" }), "cat /f")).toBe("second\n");
    await first.client.sandbox("falls").destroy();
  });

  it("do not go on where they were before another machine had them, though that has them no more", async () => {
    const sandbox = await first.client.create({ id: "returns", layers: ["000-base-test"] });
    await print(sandbox, "echo first >/f");
    await first.end("SIGKILL");
    const create = (): Promise<boolean> =>
      second.client.create({ id: "returns" }).then(
        () => true,
        () => false,
      );
    await until(create);
    await print(second.client.sandbox("returns"), "echo second >/f");
    await second.client.sandbox("returns").destroy();
    await first.start();
    expect((await first.client.list()).map(({ id }) => id)).not.toContain("returns");
    expect(await print(await first.client.create({ id: "returns" }), "cat /f")).toBe("second\n");
    await first.client.sandbox("returns").destroy();
  });

  it("are all saved when squashd is told to end, or it says which are not", async () => {
    for (const id of ["d1", "d2", "d3"]) {
      const sandbox = await first.client.create({ id, layers: ["000-base-test"] });
      await print(sandbox, `echo ${id} >/f`);
    }
    await first.end("SIGTERM");
    for (const id of ["d1", "d2", "d3"]) {
      expect(await print(await second.client.create({ id }), "cat /f")).toBe(`${id}\n`);
      await second.client.sandbox(id).destroy();
    }
    await first.start();
    const sandbox = await first.client.create({ id: "left", layers: ["000-base-test"] });
    await print(sandbox, "echo 1 >/f");
    await using fault = await proxy.inject({ kind: "answer", status: 403, code: "AccessDenied" }, { method: "PUT" });
    await first.end("SIGTERM");
    expect((await fault.count()).applied).toBeGreaterThan(0);
    expect(first.output).toContain('sandbox "left" could not be saved');
    await fault[Symbol.asyncDispose]();
    await first.start();
    expect(await print(first.client.sandbox("left"), "cat /f")).toBe("1\n");
    await first.client.sandbox("left").destroy();
  });

  it("end here when another machine may have them, though squashd lives", async () => {
    const sandbox = await first.client.create({ id: "cut", layers: ["000-base-test"] });
    const { pid } = await sandbox.info();
    await proxy.cut();
    await until(async () => (await first.client.list()).every(({ id }) => id !== "cut"));
    expect(() => process.kill(pid ?? 0, 0)).toThrow("ESRCH");
    await proxy.mend();
    const again = await first.client.create({ id: "cut" });
    await again.destroy();
  });

  it("go on with what was saved last, though its snapshot was deleted", async () => {
    const sandbox = await first.client.create({ id: "forgets", layers: ["000-base-test"] });
    await print(sandbox, "echo kept >/f");
    await sandbox.destroy();
    const again = await second.client.create({ id: "forgets" });
    for (const { label } of await again.history()) await again.deleteSnapshot(label);
    await until(async () => (await second.client.bucket()).queued === 0);
    await again.destroy();
    expect(await print(await first.client.create({ id: "forgets" }), "cat /f")).toBe("kept\n");
    await first.client.sandbox("forgets").destroy();
  });

  it("are not said to be saved when others had to be let have them meanwhile", async () => {
    const sandbox = await first.client.create({ id: "late", layers: ["000-base-test"] });
    await print(sandbox, "echo 1 >/f");
    await using manifest = await proxy.inject(
      { kind: "answer", status: 503, code: "SlowDown" },
      { method: "PUT", path: /late\/manifest\.json/ },
    );
    await using snapshot = await proxy.inject(
      { kind: "latency", ms: leaseS * 1_000 + 2_000 },
      { method: "PUT", path: /late\/snapshots\// },
    );
    await expect(sandbox.snapshot({ label: "mine" }, { wait: "durable" })).rejects.toMatchObject({
      code: expect.stringMatching(/^(lease_lost|sandbox_not_found)$/) as unknown,
    });
    expect((await snapshot.count()).applied).toBeGreaterThan(0);
    expect((await manifest.count()).applied).toBeGreaterThan(0);
    await until(async () => (await first.client.list()).every(({ id }) => id !== "late"));
  });
});
