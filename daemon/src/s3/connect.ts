import type { S3Client, S3ClientConfig } from "@aws-sdk/client-s3";

/** Which bucket, where, as whom. */
export interface S3Settings {
  readonly bucket: string;
  /** "" for Amazon's; one of its own is spoken to with the bucket in the path */
  readonly endpoint: string;
  readonly region: string;
  /** what all keys begin with */
  readonly prefix: string;
  /** null for the SDK's default chain: environment, files, container, instance */
  readonly credentials: {
    readonly accessKeyId: string;
    readonly secretAccessKey: string;
    readonly sessionToken?: string;
  } | null;
  /** how long it may be silent before a request is tried again */
  readonly timeoutMs: number;
  /** how the store is to encrypt what it keeps; null for its own default */
  readonly encryption: { readonly algorithm: "AES256" | "aws:kms"; readonly kmsKeyId: string } | null;
}

/** The SDK, which takes most of a second to load: only who uses a bucket waits for that. */
export type Sdk = typeof import("@aws-sdk/client-s3");

/** requests of one client at a time; more wait */
const maxSockets = 32;
const connectionTimeout = 5_000;
/** with delays that double, from 100 ms up to 20 s */
const attempts = 5;

/** What answers are given besides what they say, in ms. */
export interface ServerTime {
  serverMs?: number;
}

/** Throws an Error of the SDK for settings that cannot be. */
export function connect(sdk: Sdk, settings: S3Settings): S3Client {
  const { endpoint, region, credentials, timeoutMs } = settings;
  const config: S3ClientConfig = {
    region,
    maxAttempts: attempts,
    // what is sent has its digest signed, and what comes is compared with one that is kept elsewhere
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    requestHandler: {
      connectionTimeout,
      requestTimeout: timeoutMs,
      socketTimeout: timeoutMs,
      throwOnRequestTimeout: true,
      httpAgent: { keepAlive: true, maxSockets },
      httpsAgent: { keepAlive: true, maxSockets },
    },
    ...(endpoint !== "" && { endpoint, forcePathStyle: true }),
    ...(credentials !== null && { credentials }),
  };
  const client = new sdk.S3Client(config);
  client.middlewareStack.add(
    (next) => async (args) => {
      const answer = await next(args);
      const { headers } = answer.response as { readonly headers?: Readonly<Record<string, string>> };
      (answer.output as ServerTime).serverMs = Date.parse(headers?.["date"] ?? "");
      return answer;
    },
    { step: "deserialize", priority: "high", name: "serverTime" },
  );
  return client;
}
