import {
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  UploadPartCommand,
  type CompletedPart,
} from "@aws-sdk/client-s3";
import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import { sdkClient } from "../test/support/s3/sdk-client.js";
import type { S3Place } from "../test/support/s3/s3-server.js";

/** What the program is told: to copy a file to an object, and back to another file, with nothing but the SDK. */
export interface PlainArguments {
  readonly place: Pick<S3Place, "endpoint" | "region" | "bucket" | "credentials">;
  readonly from: string;
  readonly to: string;
  readonly key: string;
  readonly partBytes: number;
  readonly parallel: number;
}

/** Seconds of each way. */
export interface PlainFigures {
  readonly pushS: number;
  readonly pullS: number;
}

const given = JSON.parse(process.argv[2] ?? "") as PlainArguments;
const client = sdkClient(given.place, { maxAttempts: 3 });
const { bucket: Bucket } = given.place;
const { key: Key, partBytes, parallel } = given;

async function inTurns(count: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: parallel }, async () => {
      for (let index = next++; index < count; index = next++) await work(index);
    }),
  );
}

async function push(): Promise<void> {
  await using file = await open(given.from, "r");
  const { size } = await file.stat();
  const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key }));
  const Parts: CompletedPart[] = [];
  await inTurns(Math.ceil(size / partBytes), async (index) => {
    const Body = Buffer.allocUnsafe(Math.min(partBytes, size - index * partBytes));
    await file.read(Body, 0, Body.length, index * partBytes);
    const PartNumber = index + 1;
    const { ETag } = await client.send(new UploadPartCommand({ Bucket, Key, UploadId, PartNumber, Body }));
    Parts[index] = { PartNumber, ETag };
  });
  await client.send(new CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts } }));
}

async function pull(size: number): Promise<void> {
  await using file = await open(given.to, "w");
  await inTurns(Math.ceil(size / partBytes), async (index) => {
    const start = index * partBytes;
    const end = Math.min(start + partBytes, size);
    const { Body } = await client.send(new GetObjectCommand({ Bucket, Key, Range: `bytes=${start}-${end - 1}` }));
    let at = start;
    for await (const chunk of Body as Readable) {
      const bytes = chunk as Buffer;
      await file.write(bytes, 0, bytes.length, at);
      at += bytes.length;
    }
  });
  await file.sync();
}

const size = await (await open(given.from, "r")).stat().then((stat) => stat.size);
const start = performance.now();
await push();
const middle = performance.now();
await pull(size);
const figures: PlainFigures = { pushS: (middle - start) / 1_000, pullS: (performance.now() - middle) / 1_000 };
process.stdout.write(`${JSON.stringify(figures)}\n`);
process.exit(0);
