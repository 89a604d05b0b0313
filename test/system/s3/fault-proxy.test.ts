import { randomBytes } from "node:crypto";
import { join } from "node:path";
import * as s3 from "@aws-sdk/client-s3";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { lacks } from "../../support/needs.js";
import { TestNetns } from "../../support/netns.js";
import { FaultProxy } from "../../support/s3/fault-proxy.js";
import type { Enter } from "../../support/s3/hosted.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { failureOf, sdkClient } from "../../support/s3/sdk-client.js";

describe("the tests' proxy with faults", () => {
  const content = randomBytes(3_000_000);
  let server: S3Server;
  let proxy: FaultProxy;
  let client: s3.S3Client;
  let Bucket: string;

  beforeAll(async () => {
    server = await S3Server.start();
    proxy = await FaultProxy.start(server);
    Bucket = server.bucket;
  });
  afterAll(async () => {
    await proxy[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    const { region, credentials } = server;
    const place = { endpoint: proxy.endpoint, region, credentials };
    client = sdkClient(place, { responseChecksumValidation: "WHEN_REQUIRED" });
    await put("object");
  });
  afterEach(() => client.destroy());

  const put = (Key: string, abortSignal = AbortSignal.timeout(20_000)) =>
    client.send(new s3.PutObjectCommand({ Bucket, Key, Body: content }), { abortSignal });
  const get = async (Key: string, abortSignal = AbortSignal.timeout(20_000)): Promise<Buffer> => {
    const { Body } = await client.send(new s3.GetObjectCommand({ Bucket, Key }), { abortSignal });
    return Buffer.from((await Body?.transformToByteArray()) ?? []);
  };
  const codeOf = (work: Promise<unknown>): Promise<string> =>
    work.then(
      () => "none",
      (error: unknown) => String((error as { code?: string | number }).code ?? (error as Error).name),
    );

  it("passes on what has no fault", async () => {
    expect((await get("object")).equals(content)).toBe(true);
    expect(await failureOf(get("nothing"))).toBe("NoSuchKey");
  });

  it("waits before it passes a request on", async () => {
    await using _fault = await proxy.inject({ kind: "latency", ms: 300 }, { method: "HEAD" });
    const from = performance.now();
    await client.send(new s3.HeadObjectCommand({ Bucket, Key: "object" }));
    expect(performance.now() - from).toBeGreaterThan(290);
  });

  it("resets in the middle of a request's body, and the server has nothing of it", async () => {
    await using fault = await proxy.inject({ kind: "reset-request", afterBytes: 1_000_000 });
    const seen = await server.seenDuring(async () => {
      expect(await codeOf(put("reset"))).toMatch(/^(ECONNRESET|EPIPE)$/);
      await expect.poll(() => server.receiving()).toBe(0);
    });
    expect(await fault.count()).toEqual({ matched: 1, applied: 1 });
    expect(seen).toMatchObject([{ operation: "PutObject", status: 0 }]);
    // a reset takes along what the server has not read yet
    expect(seen[0]?.bytesIn).toBeLessThanOrEqual(1_000_000);
    await fault[Symbol.asyncDispose]();
    expect(await failureOf(get("reset"))).toBe("NoSuchKey");
  });

  it("loses the answer to what the server has done", async () => {
    await using fault = await proxy.inject({ kind: "lose-response" }, { method: "PUT" });
    expect(await codeOf(put("done"))).toBe("ECONNRESET");
    expect((await fault.count()).applied).toBe(1);
    expect((await get("done")).equals(content)).toBe(true);
  });

  it("resets in the middle of an answer's body", async () => {
    await using _fault = await proxy.inject({ kind: "reset-response", afterBytes: 1_000_000 });
    const { Body } = await client.send(new s3.GetObjectCommand({ Bucket, Key: "object" }));
    let got = 0;
    const read = async (): Promise<void> => {
      for await (const piece of Body as AsyncIterable<Buffer>) got += piece.length;
    };
    expect(await codeOf(read())).toBe("ECONNRESET");
    expect(got).toBeLessThanOrEqual(1_000_000);
  });

  it("closes in order in the middle of an answer's body", async () => {
    await using _fault = await proxy.inject({ kind: "truncate", afterBytes: 1_000_000 });
    const { Body } = await client.send(new s3.GetObjectCommand({ Bucket, Key: "object" }));
    let got = 0;
    const read = async (): Promise<void> => {
      for await (const piece of Body as AsyncIterable<Buffer>) got += piece.length;
    };
    expect(await codeOf(read())).toBe("ECONNRESET");
    expect(got).toBe(1_000_000);
  });

  it("spoils a byte of an answer's body", async () => {
    await using _fault = await proxy.inject({ kind: "corrupt", offset: 2_000_000 });
    const got = await get("object");
    expect(got[2_000_000]).toBe(~(content[2_000_000] ?? 0) & 255);
    got[2_000_000] = content[2_000_000] ?? 0;
    expect(got.equals(content)).toBe(true);
  });

  it.each([
    [500, "InternalError"],
    [503, "SlowDown"],
    [409, "ConditionalRequestConflict"],
  ])("answers %i %s without asking the server", async (status, code) => {
    await using _fault = await proxy.inject({ kind: "answer", status, code });
    const seen = await server.seenDuring(async () => {
      const failure = await put("answered").catch((error: unknown) => error as s3.S3ServiceException);
      expect(failure).toMatchObject({ name: code, $metadata: { httpStatusCode: status } });
    });
    expect(seen).toEqual([]);
  });

  it("answers with an error that calls itself a success", async () => {
    await using _fault = await proxy.inject({ kind: "answer", status: 200, code: "InternalError" }, { method: "POST" });
    const upload = {
      Bucket,
      Key: "parts",
      UploadId: "any",
      MultipartUpload: { Parts: [{ PartNumber: 1, ETag: "a" }] },
    };
    expect(await failureOf(client.send(new s3.CompleteMultipartUploadCommand(upload)))).toBe("InternalError");
  });

  it.each([
    ["the request's body", { kind: "stall-request", afterBytes: 1_000_000 }, "put"],
    ["the answer", { kind: "stall-response" }, "get"],
    ["the answer's body", { kind: "stall-response", afterBytes: 1_000_000 }, "get"],
  ] as const)("lets %s stall until the client has had enough", async (_name, fault, what) => {
    await using active = await proxy.inject(fault);
    const from = performance.now();
    const work = what === "put" ? put("stalled", AbortSignal.timeout(700)) : get("object", AbortSignal.timeout(700));
    // while the body comes the client only tells that it has closed the connection
    expect(await codeOf(work)).toMatch(/^(20|23|ABORT_ERR|ECONNRESET|AbortError|TimeoutError)$/);
    expect(performance.now() - from).toBeGreaterThan(650);
    expect((await active.count()).applied).toBe(1);
  });

  it("picks the requests that are meant by method, path and number", async () => {
    const which = { method: "GET", path: /picked\/.*one/, skip: 1, times: 1 };
    for (const key of ["picked/ä one", "picked/two"]) await put(key);
    await using fault = await proxy.inject({ kind: "answer", status: 503, code: "SlowDown" }, which);
    await put("picked/ä one");
    const failures: string[] = [];
    for (const key of ["ä one", "two", "ä one", "ä one"]) failures.push(await failureOf(get(`picked/${key}`)));
    expect(failures).toEqual(["none", "none", "SlowDown", "none"]);
    expect(await fault.count()).toEqual({ matched: 3, applied: 1 });
  });

  it.skipIf(lacks("root"))("leads into a network namespace, and a server can be in one itself", async () => {
    const netns = new TestNetns(join(server.folder, "netns"));
    netns.make();
    try {
      const enter: Enter = (program, args) => netns.enter(program, args);
      await using outside = await FaultProxy.start(server, { socket: join(server.folder, "proxy.sock") });
      await using inside = await FaultProxy.start(outside, { enter });
      await using another = await S3Server.start({ enter });
      const ask = ({ endpoint }: { endpoint: string }): string => netns.run("curl", "-s", `${endpoint}/${Bucket}/x`);
      const seen = await server.seenDuring(() => {
        expect(ask(inside)).toContain("AccessDenied");
        return Promise.resolve();
      });
      expect(seen).toMatchObject([{ status: 403, key: "x" }]);
      expect(ask(another)).toContain("AccessDenied");
      expect(await another.seen()).toHaveLength(1);
      expect(() => ask(server)).toThrow();
    } finally {
      netns[Symbol.dispose]();
    }
  });

  it("is cut off and mended again", async () => {
    await using _fault = await proxy.inject({ kind: "stall-response" }, { path: /stalled/ });
    await proxy.cut();
    expect(await codeOf(get("object"))).toBe("ECONNREFUSED");
    await proxy.mend();
    expect((await get("object")).equals(content)).toBe(true);
    const stalled = codeOf(get("stalled"));
    await expect.poll(async () => (await _fault.count()).applied).toBe(1);
    await proxy.cut();
    expect(await stalled).toBe("ECONNRESET");
    await proxy.mend();
  });
});
