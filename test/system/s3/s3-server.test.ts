import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import * as http from "node:http";
import { join } from "node:path";
import { Readable } from "node:stream";
import * as s3 from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { behavesAsS3 } from "../../support/s3/common-behaviour.js";
import { newCredentials, S3Server } from "../../support/s3/s3-server.js";
import type { S3Credentials } from "../../support/s3/server/signature.js";
import { failureOf, sdkClient } from "../../support/s3/sdk-client.js";

describe("the tests' S3", () => {
  behavesAsS3(() => S3Server.start());
});

describe("the tests' S3 beyond what is common", () => {
  let server: S3Server;
  let client: s3.S3Client;
  let Bucket: string;

  beforeAll(async () => {
    server = await S3Server.start();
    client = sdkClient(server);
    Bucket = server.bucket;
  });
  afterAll(async () => {
    client.destroy();
    await server[Symbol.asyncDispose]();
  });
  const put = (
    Key: string,
    Body: NonNullable<s3.PutObjectCommandInput["Body"]>,
    more: Partial<s3.PutObjectCommandInput> = {},
  ) => client.send(new s3.PutObjectCommand({ Bucket, Key, Body, ...more }));
  const read = async (Key: string, from = client): Promise<Buffer> => {
    const { Body } = await from.send(new s3.GetObjectCommand({ Bucket, Key }));
    return Buffer.from((await Body?.transformToByteArray()) ?? []);
  };

  it.each(["CRC32", "CRC32C", "SHA1", "SHA256"] as const)("takes and keeps %s checksums", async (ChecksumAlgorithm) => {
    const content = randomBytes(100_000);
    const Body = Readable.from([content]);
    await put("summed", content, { ChecksumAlgorithm });
    // the client holds it against the content
    expect((await read("summed")).equals(content)).toBe(true);
    const [seen] = await server.seenDuring(() =>
      put("summed", Body, { ChecksumAlgorithm, ContentLength: content.length }),
    );
    expect(seen?.headers).toMatchObject({
      "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
      "x-amz-trailer": `x-amz-checksum-${ChecksumAlgorithm.toLowerCase()}`,
    });
    expect((await read("summed")).equals(content)).toBe(true);
  });

  it("refuses a checksum that is another's", async () => {
    expect(await failureOf(put("unsummed", "text", { ChecksumCRC32C: "AAAAAA==" }))).toBe("BadDigest");
    expect(await failureOf(read("unsummed"))).toBe("NoSuchKey");
  });

  it("finds the bucket in the host", async () => {
    const agent = new http.Agent({
      lookup: (_name, _options, found) => found(null, [{ address: "127.0.0.1", family: 4 }]),
    });
    const endpoint = `http://s3.test:${server.port}`;
    const virtual = sdkClient(server, { endpoint, forcePathStyle: false, requestHandler: { httpAgent: agent } });
    await virtual.send(new s3.PutObjectCommand({ Bucket, Key: "by/host", Body: "text" }));
    virtual.destroy();
    expect((await read("by/host")).toString()).toBe("text");
    expect((await server.seen()).findLast(({ operation }) => operation === "PutObject")?.headers["host"]).toBe(
      `${Bucket}.s3.test:${server.port}`,
    );
  });

  it("wants the session token of temporary credentials, and refuses them once they are over", async () => {
    const temporary = { ...newCredentials(), sessionToken: "a-token" };
    await server.set({ access: [server.credentials, temporary] });
    const attempt = async (credentials: S3Credentials): Promise<string> => {
      const guest = sdkClient(server, { credentials });
      const failure = await failureOf(guest.send(new s3.PutObjectCommand({ Bucket, Key: "guest", Body: "x" })));
      guest.destroy();
      return failure;
    };
    expect(await attempt(temporary)).toBe("none");
    expect(await attempt({ ...temporary, sessionToken: "another" })).toBe("InvalidToken");
    await server.set({ access: [server.credentials, { ...temporary, state: "expired" }] });
    expect(await attempt(temporary)).toBe("ExpiredToken");
    await server.set({ access: [server.credentials, { ...temporary, state: "read-only" }] });
    expect(await attempt(temporary)).toBe("AccessDenied");
    await server.set({ access: [server.credentials] });
    expect(await attempt(temporary)).toBe("InvalidAccessKeyId");
  });

  it("has a clock of its own", async () => {
    await server.set({ skewMs: 3_600_000 });
    expect(await failureOf(put("skewed", "x"))).toBe("RequestTimeTooSkewed");
    const ahead = sdkClient(server, { systemClockOffset: 3_600_000 });
    await ahead.send(new s3.PutObjectCommand({ Bucket, Key: "skewed", Body: "x" }));
    const { LastModified } = await ahead.send(new s3.HeadObjectCommand({ Bucket, Key: "skewed" }));
    ahead.destroy();
    await server.set({ skewMs: 0 });
    expect((LastModified?.getTime() ?? 0) - Date.now()).toBeGreaterThan(3_500_000);
    // the client has learnt the wrong time from the refusal
    client.destroy();
    client = sdkClient(server);
  });

  it("loses its bucket and has it back with what was in it", async () => {
    await put("kept", "text");
    await server.set({ hasBucket: false });
    expect(await failureOf(read("kept"))).toBe("NoSuchBucket");
    expect(await failureOf(put("kept", "other"))).toBe("NoSuchBucket");
    expect(await failureOf(client.send(new s3.HeadBucketCommand({ Bucket })))).toBe("NotFound");
    await server.set({ hasBucket: true });
    expect((await read("kept")).toString()).toBe("text");
  });

  it("calls it a conflict when the object is removed while a conditional write is under way", async () => {
    const { ETag } = await put("conflict", "one");
    const slow = new Readable({ read: () => undefined });
    slow.push("x".repeat(1_000));
    const options = { ContentLength: 1_001, IfMatch: ETag };
    const write = failureOf(put("conflict", slow, options));
    await expect.poll(() => server.receiving()).toBe(1);
    await client.send(new s3.DeleteObjectCommand({ Bucket, Key: "conflict" }));
    slow.push("y");
    slow.push(null);
    expect(await write).toBe("ConditionalRequestConflict");
    expect(await failureOf(put("conflict", "two", { IfMatch: ETag }))).toBe("NoSuchKey");
  });

  it("wants parts in the order of their numbers", async () => {
    const Key = "ordered";
    const { UploadId } = await client.send(new s3.CreateMultipartUploadCommand({ Bucket, Key }));
    const Parts: s3.CompletedPart[] = [];
    for (const PartNumber of [2, 1]) {
      const command = new s3.UploadPartCommand({ Bucket, Key, UploadId, PartNumber, Body: "part" });
      Parts.push({ PartNumber, ETag: (await client.send(command)).ETag });
    }
    const command = new s3.CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts } });
    expect(await failureOf(client.send(command))).toBe("InvalidPartOrder");
  });

  it("completes an upload in parts only if the condition holds, and else keeps it", async () => {
    const Key = "conditional/parts";
    const { UploadId } = await client.send(new s3.CreateMultipartUploadCommand({ Bucket, Key }));
    const { ETag } = await client.send(
      new s3.UploadPartCommand({ Bucket, Key, UploadId, PartNumber: 1, Body: "part" }),
    );
    await put(Key, "first");
    const complete = (more: Partial<s3.CompleteMultipartUploadCommandInput>) => {
      const MultipartUpload = { Parts: [{ PartNumber: 1, ETag }] };
      return client.send(new s3.CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload, ...more }));
    };
    expect(await failureOf(complete({ IfNoneMatch: "*" }))).toBe("PreconditionFailed");
    const { ETag: current } = await client.send(new s3.HeadObjectCommand({ Bucket, Key }));
    await complete({ IfMatch: current });
    expect((await read(Key)).toString()).toBe("part");
    expect(await failureOf(complete({}))).toBe("NoSuchUpload");
  });

  it("tells what was asked of it, and keeps what was said about encryption", async () => {
    const encryption = { ServerSideEncryption: "aws:kms", SSEKMSKeyId: "a-key" } as const;
    const seen = await server.seenDuring(async () => {
      await put("seen", "12345", encryption);
      await read("seen");
      await failureOf(read("unseen"));
    });
    expect(seen).toMatchObject([
      { operation: "PutObject", method: "PUT", key: "seen", status: 200, bytesIn: 5, bytesOut: 0, isComplete: true },
      { operation: "GetObject", method: "GET", key: "seen", status: 200, bytesIn: 0, bytesOut: 5 },
      { operation: "GetObject", key: "unseen", status: 404, code: "NoSuchKey" },
    ]);
    expect(seen[0]?.headers).toMatchObject({
      "x-amz-server-side-encryption": "aws:kms",
      "x-amz-server-side-encryption-aws-kms-key-id": "a-key",
    });
    const head = await client.send(new s3.HeadObjectCommand({ Bucket, Key: "seen" }));
    expect(head).toMatchObject(encryption);
  });

  it("serves what a test has made of the content on its disk", async () => {
    const plain = sdkClient(server, { responseChecksumValidation: "WHEN_REQUIRED" });
    await put("spoilt", "aaaa");
    await server.corrupt("spoilt", 2);
    expect([...(await read("spoilt", plain))]).toEqual([97, 97, 97 ^ 255, 97]);
    expect(await failureOf(read("spoilt"))).not.toBe("none");
    await server.truncate("spoilt", 1);
    expect(await failureOf(read("spoilt", plain))).not.toBe("none");
    plain.destroy();
  });

  it("gives a reader the object as it was when he began, and frees the disk afterwards", async () => {
    const content = randomBytes(20_000_000);
    await put("replaced", content);
    const [file] = await server.filesOf("replaced");
    const { Body } = await client.send(new s3.GetObjectCommand({ Bucket, Key: "replaced" }));
    await put("replaced", "new");
    expect(existsSync(file?.path ?? "")).toBe(true);
    expect(Buffer.from((await Body?.transformToByteArray()) ?? []).equals(content)).toBe(true);
    await expect.poll(() => existsSync(file?.path ?? "")).toBe(false);
  });

  it("has everything that it has answered for after it was killed", async () => {
    const folder = join(server.folder, "kept");
    const options = { folder, access: [server.credentials] };
    const first = await S3Server.start(options);
    const one = sdkClient(first);
    await one.send(new s3.PutObjectCommand({ Bucket, Key: "a", Body: "text" }));
    const { UploadId } = await one.send(new s3.CreateMultipartUploadCommand({ Bucket, Key: "b" }));
    const part = { Bucket, Key: "b", UploadId, PartNumber: 1 };
    const { ETag } = await one.send(new s3.UploadPartCommand({ ...part, Body: "part" }));
    await first[Symbol.asyncDispose]();
    await using second = await S3Server.start({ ...options, port: first.port });
    expect((await read("a", one)).toString()).toBe("text");
    const MultipartUpload = { Parts: [{ PartNumber: 1, ETag }] };
    await one.send(new s3.CompleteMultipartUploadCommand({ Bucket, Key: "b", UploadId, MultipartUpload }));
    expect((await read("b", one)).toString()).toBe("part");
    one.destroy();
    expect(second.endpoint).toBe(first.endpoint);
  });
});
