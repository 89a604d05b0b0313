import { S3Client, type S3ClientConfig } from "@aws-sdk/client-s3";
import type { S3Place } from "./s3-server.js";

/** AWS's own client of such a place, which tries everything once. */
export function sdkClient(
  place: Omit<S3Place, "bucket" | typeof Symbol.asyncDispose>,
  config: S3ClientConfig = {},
): S3Client {
  const { endpoint, region, credentials } = place;
  return new S3Client({ endpoint, region, credentials, forcePathStyle: true, maxAttempts: 1, ...config });
}

/** The name of the error that something fails with, or "none". */
export async function failureOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "none",
    (error: unknown) => (error instanceof Error ? error.name : String(error)),
  );
}
