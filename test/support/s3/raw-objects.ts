import {
  DeleteObjectsCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type _Object,
  type S3Client,
} from "@aws-sdk/client-s3";
import type { S3Place } from "./s3-server.js";
import { sdkClient } from "./sdk-client.js";

/** What lies in a place, past squashd. */
export class RawObjects implements Disposable {
  readonly #client: S3Client;
  readonly #bucket: string;

  constructor(place: S3Place) {
    this.#client = sdkClient(place, { requestChecksumCalculation: "WHEN_REQUIRED", maxAttempts: 3 });
    this.#bucket = place.bucket;
  }

  /** Keys that begin so, in their order. */
  async keys(prefix = ""): Promise<string[]> {
    return (await this.#list(prefix)).map(({ Key: key = "" }) => key);
  }

  /** Of all objects together. */
  async bytes(): Promise<number> {
    return (await this.#list("")).reduce((sum, { Size: size = 0 }) => sum + size, 0);
  }

  async #list(prefix: string): Promise<_Object[]> {
    const { Contents: found = [], IsTruncated: isCut } = await this.#client.send(
      new ListObjectsV2Command({ Bucket: this.#bucket, Prefix: prefix }),
    );
    if (isCut === true) throw new Error("there are more keys than one answer holds");
    return found;
  }

  /** How many uploads in parts are open. */
  async uploads(): Promise<number> {
    const { Uploads: open = [] } = await this.#client.send(new ListMultipartUploadsCommand({ Bucket: this.#bucket }));
    return open.length;
  }

  async get(key: string): Promise<Buffer> {
    const { Body: body } = await this.#client.send(new GetObjectCommand({ Bucket: this.#bucket, Key: key }));
    return Buffer.from((await body?.transformToByteArray()) ?? []);
  }

  async put(key: string, content: Uint8Array): Promise<void> {
    await this.#client.send(new PutObjectCommand({ Bucket: this.#bucket, Key: key, Body: content }));
  }

  /** Flips all bits of a byte of an object's content; what else is said of it stays. */
  async corrupt(key: string, offset: number): Promise<void> {
    const at = { Bucket: this.#bucket, Key: key };
    const { Body: body, Metadata: metadata } = await this.#client.send(new GetObjectCommand(at));
    const content = (await body?.transformToByteArray()) ?? new Uint8Array();
    content[offset] = ~(content[offset] ?? 0) & 255;
    await this.#client.send(new PutObjectCommand({ ...at, Body: content, Metadata: metadata }));
  }

  async remove(...keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return;
    const objects = keys.map((key) => ({ Key: key }));
    await this.#client.send(new DeleteObjectsCommand({ Bucket: this.#bucket, Delete: { Objects: objects } }));
  }

  /** Removes everything below a prefix. */
  async removeAll(prefix: string): Promise<void> {
    await this.remove(...(await this.keys(prefix)));
  }

  [Symbol.dispose](): void {
    this.#client.destroy();
  }
}
