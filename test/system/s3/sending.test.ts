import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Blobs } from "../../../daemon/src/s3/blobs.js";
import { Bucket } from "../../../daemon/src/s3/bucket.js";
import { BucketFiles } from "../../../daemon/src/s3/files.js";
import { lacks } from "../../support/needs.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server, type S3Place } from "../../support/s3/s3-server.js";
import { RadosGateway } from "../../support/s3/second-server.js";

const mib = 1_048_576;
const { signal } = new AbortController();
const shaOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

async function collect(objects: AsyncIterable<{ readonly key: string }>): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of objects) keys.push(key);
  return keys;
}

/** What holds of files in any S3. */
function keepsFiles(start: () => Promise<S3Place>): void {
  const folder = mkdtempSync(join(tmpdir(), "sqt-files-"));
  const path = join(folder, "file");
  let place: S3Place;
  let objects: RawObjects;
  let bucket: Bucket;
  let files: BucketFiles;

  beforeAll(async () => {
    place = await start();
    objects = new RawObjects(place);
    const settings = { ...place, prefix: "team/", timeoutMs: 30_000, encryption: null };
    bucket = new Bucket(settings);
    files = new BucketFiles(bucket, new Blobs(bucket, null), { folder, canKeepWhole: true });
  });
  afterAll(async () => {
    await bucket.close();
    objects[Symbol.dispose]();
    await place[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  const blobOf = (sha256: string): string => `team/blobs/sha256/${sha256.slice(0, 2)}/${sha256}`;

  it.each([0, 1, 8 * mib, 8 * mib + 1, 20 * mib])("gives back a file of %i bytes, however it is kept", async (size) => {
    const content = randomBytes(size);
    writeFileSync(path, content);
    const whole = await files.send(path, shaOf(content), { signal });
    const pieces = await files.sendByContent(path, { signal });
    expect([whole.file.stored, pieces.file.stored]).toEqual(["whole", "pieces"]);
    for (const [index, { file }] of [whole, pieces].entries()) {
      const got = join(folder, `got-${size}-${index}`);
      await files.fetch(file, got, { signal });
      expect(readFileSync(got).equals(content)).toBe(true);
    }
    expect((await files.send(path, shaOf(content), { signal })).sentBytes).toBe(0);
    expect((await files.sendByContent(path, { signal })).sentBytes).toBe(0);
  });

  it("does not take what arrived of a damaged file for what is sent once that is repaired", async () => {
    const content = randomBytes(20 * mib);
    const damaged = Buffer.concat([content, randomBytes(8 * mib)]);
    damaged[9 * mib] = ~(damaged[9 * mib] ?? 0) & 255;
    writeFileSync(path, damaged);
    await expect(files.send(path, shaOf(content), { signal })).rejects.toMatchObject({ code: "s3_failed" });
    writeFileSync(path, content);
    expect(await objects.uploads()).toBe(0);
    const { sentBytes } = await files.send(path, shaOf(content), { signal });
    expect((await objects.get(blobOf(shaOf(content)))).equals(content)).toBe(true);
    expect(sentBytes).toBe(20 * mib);
    expect(await objects.uploads()).toBe(0);
  });

  it("sends an object anew that has another size there", async () => {
    const content = randomBytes(17 * mib);
    writeFileSync(path, content);
    await objects.put(blobOf(shaOf(content)), content.subarray(0, mib));
    await files.send(path, shaOf(content), { signal });
    expect((await objects.get(blobOf(shaOf(content)))).equals(content)).toBe(true);
  });

  it("begins anew where the store has dropped what had arrived", async () => {
    const content = randomBytes(17 * mib);
    writeFileSync(path, content);
    const key = `blobs/sha256/${shaOf(content).slice(0, 2)}/${shaOf(content)}`;
    const upload = await bucket.beginUpload(key, {}, signal);
    writeFileSync(join(folder, `${shaOf(content)}.upload`), JSON.stringify({ key, id: upload, parts: [] }));
    await bucket.abandonUpload(key, upload, signal);
    await expect(files.send(path, shaOf(content), { signal })).rejects.toMatchObject({ code: "s3_unreachable" });
    await files.send(path, shaOf(content), { signal });
    expect((await objects.get(`team/${key}`)).equals(content)).toBe(true);
  });

  it("goes on with what was fetched, and mends of it what is wrong", async () => {
    const content = randomBytes(20 * mib);
    writeFileSync(path, content);
    const { file } = await files.send(path, shaOf(content), { signal });
    const got = join(folder, "resumed");
    const part = Buffer.from(content.subarray(0, 17 * mib));
    part[100] = ~(part[100] ?? 0) & 255;
    writeFileSync(got, part);
    await files.fetch(file, got, { signal });
    expect(readFileSync(got).equals(content)).toBe(true);
  });

  it("refuses an object that is shorter than it was, or is not there", async () => {
    const content = randomBytes(9 * mib);
    writeFileSync(path, content);
    const { file } = await files.send(path, shaOf(content), { signal });
    const key = blobOf(shaOf(content));
    await objects.put(key, content.subarray(0, 5 * mib));
    const got = join(folder, "short");
    await expect(files.fetch(file, got, { signal })).rejects.toMatchObject({ code: "s3_object_invalid" });
    await objects.remove(key);
    await expect(files.fetch(file, got, { signal })).rejects.toMatchObject({ code: "s3_object_missing" });
  });

  it("writes, where that is wanted, only what is absent or the same", async () => {
    const body = (text: string): Buffer => Buffer.from(text);
    const absent = { condition: { kind: "absent" }, signal } as const;
    const first = await bucket.write("conditions", body("1"), absent);
    expect(await bucket.write("conditions", body("2"), absent)).toBeNull();
    const same = { condition: { kind: "same", etag: first?.etag ?? "" }, signal } as const;
    expect(await bucket.write("conditions", body("3"), same)).not.toBeNull();
    expect(await bucket.write("conditions", body("4"), same)).toBeNull();
    const found = await bucket.read("conditions", { maxBytes: 100, signal });
    expect(found?.body.toString()).toBe("3");
    expect(Math.abs((found?.serverMs ?? 0) - Date.now())).toBeLessThan(60_000);
    await expect(bucket.read("conditions", { maxBytes: 0, signal })).rejects.toMatchObject({
      code: "s3_object_invalid",
    });
  });

  it("lists and removes what begins so, and no more", async () => {
    for (const key of ["list/b", "list/a", "list/ä +%", "lists"]) await bucket.write(key, Buffer.from(key), { signal });
    const keys = (): Promise<string[]> => collect(bucket.list("list/", signal));
    expect(await keys()).toEqual(["list/a", "list/b", "list/ä +%"]);
    await bucket.remove(["list/a", "list/ä +%", "list/none"], signal);
    expect(await keys()).toEqual(["list/b"]);
    expect(await bucket.head("lists", signal)).not.toBeNull();
  });
}

describe("files in the tests' own S3", () => {
  keepsFiles(() => S3Server.start());
});

describe.skipIf(lacks("radosgw"))("files in an S3 that others wrote", () => {
  keepsFiles(() => RadosGateway.start());
});
