import type { PutObjectCommandInput, S3Client } from "@aws-sdk/client-s3";
import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { SquashError } from "@squash/sdk/errors";
import { pause } from "../core/pause.js";
import { invalidObject } from "../core/remote/invalid-object.js";
import type {
  ObjectContent,
  ObjectFacts,
  ObjectStore,
  WriteCondition,
  WriteOptions,
  Written,
} from "../core/remote/object-store.js";
import { connect, type S3Settings, type Sdk, type ServerTime } from "./connect.js";
import { isBeyond, isConditionFailure, isConflict, isMissing, isSkewed, s3Error } from "./errors.js";

const conflictTries = 5;
const conflictMs = 100;
/** keys of one request to remove, at most */
const removeAtOnce = 1_000;

/** A part of an object, as it was answered. */
export interface UploadedPart {
  readonly number: number;
  readonly etag: string;
}

/** The bucket that the settings name, and in it what begins with their prefix. */
export class Bucket implements ObjectStore {
  readonly #settings: S3Settings;
  #connected: Promise<{ readonly sdk: Sdk; readonly client: S3Client }> | null = null;

  constructor(settings: S3Settings) {
    this.#settings = settings;
  }

  async read(
    key: string,
    { maxBytes, signal }: { readonly maxBytes: number; readonly signal: AbortSignal },
  ): Promise<ObjectContent | null> {
    return this.#ask(`read "${key}"`, signal, async (sdk, client) => {
      try {
        const found = await client.send(new sdk.GetObjectCommand(this.#at(key)), { abortSignal: signal });
        const size = found.ContentLength ?? 0;
        const stream = found.Body as Readable;
        if (size > maxBytes) {
          stream.destroy();
          throw invalidObject(key, `it has ${size} bytes, at most ${maxBytes} are expected`);
        }
        const body = await readAll(stream, size, key);
        return { ...factsOf(key, size, found), body, serverMs: timeOf(found, key) };
      } catch (error) {
        if (isMissing(error)) return null;
        throw error;
      }
    });
  }

  async readRange(
    key: string,
    { start, end }: { readonly start: number; readonly end: number },
    signal: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array>> {
    return this.#ask(`read "${key}"`, signal, async (sdk, client) => {
      try {
        const input = { ...this.#at(key), Range: `bytes=${start}-${end - 1}` };
        const found = await client.send(new sdk.GetObjectCommand(input), { abortSignal: signal });
        return found.Body as Readable;
      } catch (error) {
        if (isBeyond(error)) throw invalidObject(key, `it has no bytes from ${start} on`);
        if (!isMissing(error)) throw error;
        throw new SquashError("s3_object_missing", `Cannot read "${key}" in the bucket: it is not there`, {
          details: { key },
        });
      }
    });
  }

  async head(key: string, signal: AbortSignal): Promise<ObjectFacts | null> {
    return this.#ask(`look for "${key}"`, signal, async (sdk, client) => {
      try {
        const found = await client.send(new sdk.HeadObjectCommand(this.#at(key)), { abortSignal: signal });
        return factsOf(key, found.ContentLength ?? 0, found);
      } catch (error) {
        if (isMissing(error)) return null;
        throw error;
      }
    });
  }

  /** `sha256` where it is known already. */
  async write(
    key: string,
    body: Uint8Array,
    { condition, metadata, signal, sha256 }: WriteOptions & { readonly sha256?: string },
  ): Promise<Written | null> {
    const digest = sha256 ?? createHash("sha256").update(body).digest("hex");
    const input: PutObjectCommandInput = {
      ...this.#at(key),
      ...this.#encryption(),
      ...conditionOf(condition),
      Body: body,
      ContentLength: body.byteLength,
      ...(metadata && { Metadata: { ...metadata } }),
    };
    return this.#conditionally(`write "${key}"`, signal, async (sdk, client) => {
      const command = new sdk.PutObjectCommand(input);
      sign(command, digest);
      const written = await client.send(command, { abortSignal: signal });
      return { etag: etagOf(written, key), serverMs: timeOf(written, key) };
    });
  }

  async *list(prefix: string, signal: AbortSignal): AsyncGenerator<ObjectFacts> {
    let after: string | undefined;
    for (;;) {
      const page = await this.#ask(`list "${prefix}"`, signal, (sdk, client) => {
        const { Bucket: bucket, Key: whole } = this.#at(prefix);
        const input = { Bucket: bucket, Prefix: whole, ...(after !== undefined && { ContinuationToken: after }) };
        return client.send(new sdk.ListObjectsV2Command(input), { abortSignal: signal });
      });
      for (const found of page.Contents ?? [])
        yield factsOf((found.Key ?? "").slice(this.#settings.prefix.length), found.Size ?? 0, found);
      if (page.IsTruncated !== true || page.NextContinuationToken === undefined) return;
      after = page.NextContinuationToken;
    }
  }

  async remove(keys: readonly string[], signal: AbortSignal): Promise<void> {
    for (let at = 0; at < keys.length; at += removeAtOnce) {
      const some = keys.slice(at, at + removeAtOnce);
      await this.#ask(`remove "${some[0]}"`, signal, async (sdk, client) => {
        const objects = some.map((key) => ({ Key: this.#at(key).Key }));
        const input = { Bucket: this.#settings.bucket, Delete: { Objects: objects, Quiet: true } };
        const { Errors: errors = [] } = await client.send(new sdk.DeleteObjectsCommand(input), { abortSignal: signal });
        const [first] = errors;
        if (first === undefined) return;
        const what = `Cannot remove "${first.Key}" in the bucket: ${first.Code}: ${first.Message}`;
        throw new SquashError(first.Code === "AccessDenied" ? "s3_denied" : "s3_failed", what);
      });
    }
  }

  /** Begins an object that is sent in parts. Returns the id of the upload. */
  async beginUpload(key: string, metadata: Readonly<Record<string, string>>, signal: AbortSignal): Promise<string> {
    return this.#ask(`begin "${key}"`, signal, async (sdk, client) => {
      const input = { ...this.#at(key), ...this.#encryption(), Metadata: { ...metadata } };
      const { UploadId: id } = await client.send(new sdk.CreateMultipartUploadCommand(input), { abortSignal: signal });
      if (id === undefined) throw new Error("the answer names no upload");
      return id;
    });
  }

  /** Sends a part, again if it was sent before. null where there is no such upload any more. */
  async sendPart(
    part: { readonly key: string; readonly upload: string; readonly number: number },
    body: Uint8Array,
    options: { readonly sha256: string; readonly signal: AbortSignal },
  ): Promise<UploadedPart | null> {
    const { key, upload, number } = part;
    const { sha256, signal } = options;
    return this.#ask(`send part ${number} of "${key}"`, signal, async (sdk, client) => {
      const input = { ...this.#at(key), UploadId: upload, PartNumber: number, Body: body };
      const command = new sdk.UploadPartCommand({ ...input, ContentLength: body.byteLength });
      sign(command, sha256);
      try {
        return { number, etag: etagOf(await client.send(command, { abortSignal: signal }), key) };
      } catch (error) {
        if ((error as Error).name === "NoSuchUpload") return null;
        throw error;
      }
    });
  }

  /**
   * Puts the parts together, in the place of what may be there. Whether it is there now, for which an object of that size is taken where this had been
   * done already, unless `size` is null; else the store does not have the upload, or all of its parts.
   */
  async endUpload(
    key: string,
    {
      upload,
      parts,
      size,
    }: { readonly upload: string; readonly parts: readonly UploadedPart[]; readonly size: number | null },
    signal: AbortSignal,
  ): Promise<boolean> {
    const ended = await this.#conditionally(`end "${key}"`, signal, async (sdk, client) => {
      const listed = parts.map(({ number, etag }) => ({ PartNumber: number, ETag: etag }));
      const input = { ...this.#at(key), UploadId: upload, MultipartUpload: { Parts: listed } };
      try {
        await client.send(new sdk.CompleteMultipartUploadCommand(input), { abortSignal: signal });
        return true;
      } catch (error) {
        if (["NoSuchUpload", "InvalidPart"].includes((error as Error).name)) return null;
        throw error;
      }
    });
    return ended === true || (size !== null && (await this.head(key, signal))?.size === size);
  }

  /** Idempotent. */
  async abandonUpload(key: string, upload: string, signal: AbortSignal): Promise<void> {
    await this.#ask(`abandon "${key}"`, signal, async (sdk, client) => {
      try {
        const input = { ...this.#at(key), UploadId: upload };
        await client.send(new sdk.AbortMultipartUploadCommand(input), { abortSignal: signal });
      } catch (error) {
        if ((error as Error).name !== "NoSuchUpload") throw error;
      }
    });
  }

  /** Uploads in parts that nobody has ended, with when they began. */
  async *openUploads(
    prefix: string,
    signal: AbortSignal,
  ): AsyncGenerator<{ readonly key: string; readonly upload: string; readonly begunMs: number }> {
    const { Bucket: bucket, Key: whole } = this.#at(prefix);
    let after: { KeyMarker?: string; UploadIdMarker?: string } = {};
    for (;;) {
      const page = await this.#ask(`list uploads of "${prefix}"`, signal, (sdk, client) =>
        client.send(new sdk.ListMultipartUploadsCommand({ Bucket: bucket, Prefix: whole, ...after }), {
          abortSignal: signal,
        }),
      );
      for (const { Key: key = "", UploadId: upload = "", Initiated: begun } of page.Uploads ?? [])
        yield { key: key.slice(this.#settings.prefix.length), upload, begunMs: begun?.getTime() ?? Date.now() };
      const { IsTruncated: more, NextKeyMarker: key, NextUploadIdMarker: upload } = page;
      if (more !== true || key === undefined) return;
      after = { KeyMarker: key, ...(upload !== undefined && { UploadIdMarker: upload }) };
    }
  }

  /** Ends connections that are kept. */
  async close(): Promise<void> {
    const connected = await this.#connected?.catch(() => null);
    connected?.client.destroy();
  }

  #at(key: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.#settings.bucket, Key: this.#settings.prefix + key };
  }

  #encryption(): Partial<PutObjectCommandInput> {
    const { encryption } = this.#settings;
    if (encryption === null) return {};
    const { algorithm, kmsKeyId } = encryption;
    return { ServerSideEncryption: algorithm, ...(kmsKeyId !== "" && { SSEKMSKeyId: kmsKeyId }) };
  }

  /** Two writes that met are tried again: it is not said which of them was done. null where the condition does not hold. */
  async #conditionally<T>(
    doing: string,
    signal: AbortSignal,
    work: (sdk: Sdk, client: S3Client) => Promise<T>,
  ): Promise<T | null> {
    return this.#ask(doing, signal, async (sdk, client) => {
      for (let tries = 1; ; tries++) {
        try {
          return await work(sdk, client);
        } catch (error) {
          if (isConditionFailure(error) || isMissing(error)) return null;
          if (!isConflict(error) || tries === conflictTries) throw error;
          await pause(conflictMs * tries, signal);
        }
      }
    });
  }

  async #ask<T>(doing: string, signal: AbortSignal, work: (sdk: Sdk, client: S3Client) => Promise<T>): Promise<T> {
    if (signal.aborted) throw s3Error(new Error("cancelled"), doing, signal);
    try {
      this.#connected ??= import("@aws-sdk/client-s3").then((sdk) => ({ sdk, client: connect(sdk, this.#settings) }));
      const { sdk, client } = await this.#connected;
      return await work(sdk, client).catch((error: unknown) => {
        // the SDK has learnt the store's time by now, but does not always try again itself
        if (!isSkewed(error)) throw error;
        return work(sdk, client);
      });
    } catch (error) {
      throw s3Error(error, doing, signal);
    }
  }
}

interface Signed {
  readonly middlewareStack: { add(middleware: unknown, options: unknown): void };
}

/** Has the digest of what is sent signed, so that the store refuses anything else, whatever else it supports. */
function sign(command: object, sha256: string): void {
  (command as Signed).middlewareStack.add(
    (next: (args: unknown) => unknown) => (args: { request: { headers: Record<string, string> } }) => {
      args.request.headers["x-amz-content-sha256"] = sha256;
      return next(args);
    },
    { step: "build", name: "signedDigest" },
  );
}

function conditionOf(condition: WriteCondition | undefined): Partial<PutObjectCommandInput> {
  if (condition === undefined) return {};
  if (condition.kind === "absent") return { IfNoneMatch: "*" };
  // Ceph's gateway compares it with what has no quotes; others take both
  return { IfMatch: condition.etag.replaceAll('"', "") };
}

function factsOf(
  key: string,
  size: number,
  found: { ETag?: string | undefined; LastModified?: Date | undefined },
): ObjectFacts {
  return { key, size, etag: etagOf(found, key), modifiedMs: found.LastModified?.getTime() ?? 0 };
}

function etagOf({ ETag: etag }: { ETag?: string | undefined }, key: string): string {
  if (etag === undefined)
    throw new SquashError("s3_failed", `Cannot use the bucket: its answer on "${key}" has no ETag`);
  return etag;
}

function timeOf(answer: object, key: string): number {
  const { serverMs = Number.NaN } = answer as ServerTime;
  if (!Number.isNaN(serverMs)) return serverMs;
  throw new SquashError("s3_failed", `Cannot use the bucket: its answer on "${key}" has no Date`);
}

async function readAll(stream: AsyncIterable<Uint8Array>, size: number, key: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    length += chunk.byteLength;
    if (length > size) throw invalidObject(key, `it has more than the ${size} bytes that it says`);
    chunks.push(chunk);
  }
  if (length < size)
    throw Object.assign(new Error(`it broke off after ${length} bytes of ${size}`), { name: "TimeoutError" });
  return Buffer.concat(chunks, length);
}
