import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import * as s3 from "@aws-sdk/client-s3";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { S3Place } from "./s3-server.js";
import { failureOf, sdkClient } from "./sdk-client.js";

const partBytes = 5 * 1024 ** 2;

/** What S3 does that squash relies on, as tests to be run with any that claims to be one. */
export function behavesAsS3(start: () => Promise<S3Place>): void {
  let place: S3Place;
  let client: s3.S3Client;
  let Bucket: string;

  beforeAll(async () => {
    place = await start();
    client = sdkClient(place);
    Bucket = place.bucket;
  });
  afterAll(async () => {
    client.destroy();
    await place[Symbol.asyncDispose]();
  });

  const put = (
    Key: string,
    Body: NonNullable<s3.PutObjectCommandInput["Body"]>,
    more: Partial<s3.PutObjectCommandInput> = {},
  ) => client.send(new s3.PutObjectCommand({ Bucket, Key, Body, ...more }));
  const get = (Key: string, more: Partial<s3.GetObjectCommandInput> = {}) =>
    client.send(new s3.GetObjectCommand({ Bucket, Key, ...more }));
  const contentOf = async (Key: string, more: Partial<s3.GetObjectCommandInput> = {}): Promise<Buffer> =>
    Buffer.from((await (await get(Key, more)).Body?.transformToByteArray()) ?? []);

  it("gives back what was put, with its metadata and its etag", async () => {
    const content = randomBytes(300_000);
    const { ETag } = await put("plain/ä b+c", content, { Metadata: { sha256: "abc" }, ContentType: "text/x-test" });
    const answer = await get("plain/ä b+c");
    expect(Buffer.from((await answer.Body?.transformToByteArray()) ?? []).equals(content)).toBe(true);
    expect(answer).toMatchObject({ ETag, Metadata: { sha256: "abc" }, ContentType: "text/x-test" });
    const head = await client.send(new s3.HeadObjectCommand({ Bucket, Key: "plain/ä b+c" }));
    expect(head).toMatchObject({ ETag, ContentLength: content.length, Metadata: { sha256: "abc" } });
    expect(await client.send(new s3.HeadBucketCommand({ Bucket }))).toBeDefined();
  });

  it("gives the bytes of a range, and refuses one beyond the end", async () => {
    await put("range", "0123456789");
    expect((await contentOf("range", { Range: "bytes=2-4" })).toString()).toBe("234");
    expect((await contentOf("range", { Range: "bytes=7-" })).toString()).toBe("789");
    expect((await contentOf("range", { Range: "bytes=-2" })).toString()).toBe("89");
    expect(await failureOf(get("range", { Range: "bytes=10-12" }))).toBe("InvalidRange");
  });

  it("reads on only while the etag is the same", async () => {
    const { ETag } = await put("same", "one");
    expect((await contentOf("same", { IfMatch: ETag })).toString()).toBe("one");
    await put("same", "two");
    expect(await failureOf(get("same", { IfMatch: ETag }))).toBe("PreconditionFailed");
  });

  it("says that an object is not there", async () => {
    expect(await failureOf(get("nothing"))).toBe("NoSuchKey");
    expect(await failureOf(client.send(new s3.HeadObjectCommand({ Bucket, Key: "nothing" })))).toBe("NotFound");
  });

  it("lets one of many writers create an object", async () => {
    const tries = Array.from({ length: 8 }, (_, n) => put("race/create", `writer ${n}`, { IfNoneMatch: "*" }));
    const ends = await Promise.allSettled(tries);
    const winners = ends.flatMap(({ status }, n) => (status === "fulfilled" ? [n] : []));
    expect(winners).toHaveLength(1);
    expect((await contentOf("race/create")).toString()).toBe(`writer ${winners[0]}`);
    expect(await failureOf(put("race/create", "late", { IfNoneMatch: "*" }))).toBe("PreconditionFailed");
  });

  it("lets one of many writers replace the object that they know", async () => {
    // without its quotes, as not all take it with them here
    const IfMatch = (await put("race/replace", "first")).ETag?.replaceAll('"', "");
    const tries = Array.from({ length: 8 }, (_, n) => put("race/replace", `writer ${n}`, { IfMatch }));
    const ends = await Promise.allSettled(tries);
    const winners = ends.flatMap(({ status }, n) => (status === "fulfilled" ? [n] : []));
    expect(winners).toHaveLength(1);
    expect((await contentOf("race/replace")).toString()).toBe(`writer ${winners[0]}`);
    expect(await failureOf(put("race/replace", "late", { IfMatch }))).toBe("PreconditionFailed");
  });

  it("puts parts together in the order of their numbers", async () => {
    const parts = [randomBytes(partBytes), randomBytes(partBytes), randomBytes(1_000)];
    const Key = "parts/whole";
    const { UploadId } = await client.send(
      new s3.CreateMultipartUploadCommand({ Bucket, Key, Metadata: { sha256: "def" } }),
    );
    const uploaded = await Promise.all(
      parts.map(async (Body, index) => {
        const PartNumber = index + 1;
        const command = new s3.UploadPartCommand({ Bucket, Key, UploadId, PartNumber, Body });
        return { PartNumber, ETag: (await client.send(command)).ETag };
      }),
    );
    const listed = await client.send(new s3.ListPartsCommand({ Bucket, Key, UploadId }));
    expect(listed.Parts?.map(({ Size }) => Size)).toEqual(parts.map(({ length }) => length));
    const underWay = await client.send(new s3.ListMultipartUploadsCommand({ Bucket, Prefix: "parts/" }));
    expect(underWay.Uploads).toMatchObject([{ Key, UploadId }]);
    expect(await failureOf(get(Key))).toBe("NoSuchKey");
    const MultipartUpload = { Parts: uploaded };
    await client.send(new s3.CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload }));
    expect((await contentOf(Key)).equals(Buffer.concat(parts))).toBe(true);
    const across = { Range: `bytes=${partBytes - 10}-${partBytes + 9}` };
    expect((await contentOf(Key, across)).equals(Buffer.concat(parts).subarray(partBytes - 10, partBytes + 10))).toBe(
      true,
    );
    expect((await get(Key)).Metadata).toEqual({ sha256: "def" });
    expect((await client.send(new s3.ListMultipartUploadsCommand({ Bucket }))).Uploads ?? []).toEqual([]);
  });

  it("refuses parts that it does not have, or that are too small", async () => {
    const Key = "parts/wrong";
    const { UploadId } = await client.send(new s3.CreateMultipartUploadCommand({ Bucket, Key }));
    const upload = async (PartNumber: number) => ({
      PartNumber,
      ETag: (await client.send(new s3.UploadPartCommand({ Bucket, Key, UploadId, PartNumber, Body: "tiny" }))).ETag,
    });
    const complete = (...Parts: s3.CompletedPart[]) =>
      client.send(new s3.CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts } }));
    const [first, second] = [await upload(1), await upload(2)];
    expect(await failureOf(complete({ PartNumber: 3, ETag: first.ETag }))).toBe("InvalidPart");
    expect(await failureOf(complete(first, second))).toBe("EntityTooSmall");
    await client.send(new s3.AbortMultipartUploadCommand({ Bucket, Key, UploadId }));
    const underWay = await client.send(new s3.ListMultipartUploadsCommand({ Bucket, Prefix: Key }));
    expect(underWay.Uploads ?? []).toEqual([]);
  });

  it("lists in the order of the keys' bytes, page by page", async () => {
    const keys = ["list/a", "list/a/b", "list/b", "list/z", "list/ä", "list/～", "list/😀", "list/&<>"];
    for (const key of keys) await put(key, key);
    await put("list-other", "");
    const pages: string[][] = [];
    for (let ContinuationToken: string | undefined, more = true; more;) {
      const command = new s3.ListObjectsV2Command({ Bucket, Prefix: "list/", MaxKeys: 3, ContinuationToken });
      const { Contents = [], IsTruncated, NextContinuationToken } = await client.send(command);
      pages.push(Contents.map(({ Key = "" }) => Key));
      [ContinuationToken, more] = [NextContinuationToken, IsTruncated === true];
    }
    const sorted = keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(pages).toEqual([sorted.slice(0, 3), sorted.slice(3, 6), sorted.slice(6)]);
    const after = await client.send(new s3.ListObjectsV2Command({ Bucket, Prefix: "list/", StartAfter: "list/z" }));
    expect(after.Contents?.map(({ Key }) => Key)).toEqual(sorted.slice(sorted.indexOf("list/z") + 1));
    const empty = await client.send(new s3.ListObjectsV2Command({ Bucket, Prefix: "nothing/" }));
    expect(empty).toMatchObject({ KeyCount: 0, IsTruncated: false });
  });

  it("removes what is there and what is not alike", async () => {
    for (const key of ["gone/1", "gone/2 &", "gone/3"]) await put(key, "x");
    await client.send(new s3.DeleteObjectCommand({ Bucket, Key: "gone/1" }));
    await client.send(new s3.DeleteObjectCommand({ Bucket, Key: "gone/1" }));
    const Objects = [{ Key: "gone/2 &" }, { Key: "gone/never" }];
    const { Errors = [] } = await client.send(new s3.DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
    expect(Errors).toEqual([]);
    const left = await client.send(new s3.ListObjectsV2Command({ Bucket, Prefix: "gone/" }));
    expect(left.Contents?.map(({ Key }) => Key)).toEqual(["gone/3"]);
  });

  it("refuses a secret that is not the right one, and who it does not know", async () => {
    const wrong = { ...place.credentials, secretAccessKey: "wrong" };
    const unknown = { ...place.credentials, accessKeyId: "AKIANOBODY" };
    for (const [credentials, refusal] of [
      [wrong, "SignatureDoesNotMatch"],
      [unknown, "InvalidAccessKeyId"],
    ] as const) {
      const stranger = sdkClient(place, { credentials });
      const Body = "theirs";
      expect(await failureOf(stranger.send(new s3.PutObjectCommand({ Bucket, Key: "stranger", Body })))).toBe(refusal);
      stranger.destroy();
    }
    expect(await failureOf(get("stranger"))).toBe("NoSuchKey");
  });

  it("refuses a request whose time is wrong by more than a quarter of an hour", async () => {
    // the client corrects its clock by the answer for its next request, so each has one try
    const late = sdkClient(place, { systemClockOffset: -16 * 60_000 });
    expect(await failureOf(late.send(new s3.PutObjectCommand({ Bucket, Key: "late", Body: "x" })))).toBe(
      "RequestTimeTooSkewed",
    );
    late.destroy();
    const bit = sdkClient(place, { systemClockOffset: -10 * 60_000 });
    expect(await failureOf(bit.send(new s3.PutObjectCommand({ Bucket, Key: "bit", Body: "x" })))).toBe("none");
    bit.destroy();
  });

  it("takes a stream of a known length", async () => {
    const content = randomBytes(400_000);
    const Body = Readable.from([content.subarray(0, 100_000), content.subarray(100_000)]);
    const plain = sdkClient(place, { requestChecksumCalculation: "WHEN_REQUIRED" });
    await plain.send(new s3.PutObjectCommand({ Bucket, Key: "stream", Body, ContentLength: content.length }));
    plain.destroy();
    expect((await contentOf("stream")).equals(content)).toBe(true);
  });
}
