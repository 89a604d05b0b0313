import { randomBytes } from "node:crypto";
import type { Bucket, Condition, ObjectHeaders } from "./bucket.js";
import type { Incoming } from "./receive.js";
import { S3Error } from "./s3-error.js";
import { headerOf, type S3Request } from "./s3-request.js";
import type { Uploads } from "./uploads.js";

/** A request that was let in, for a bucket that is there. */
export interface Call {
  readonly request: S3Request;
  readonly incoming: Incoming;
  readonly bucket: Bucket;
  readonly uploads: Uploads;
  /** the server's clock when the request came */
  readonly nowMs: number;
  /** the bucket's moment when it came */
  readonly since: number;
}

export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** a document, or content in pieces with its length in the headers */
  readonly body?: string | AsyncIterable<Buffer>;
  /** called when it was sent, or when nobody wants it any more */
  readonly settled?: () => void;
}

export type Operation = (call: Call) => Promise<Answer> | Answer;

const kept =
  /^(content-type|cache-control|content-disposition|content-language|expires|x-amz-meta-.+|x-amz-storage-class|x-amz-server-side-encryption.*)$/;
const secret = "x-amz-server-side-encryption-customer-key";

/** What of a writer's headers its readers get. */
export function keptHeaders(request: S3Request): ObjectHeaders {
  const names = Object.keys(request.http.headers).filter((name) => kept.test(name) && name !== secret);
  const coding = headerOf(request, "content-encoding")
    .split(/ *, */)
    .filter((each) => each !== "" && each !== "aws-chunked");
  return {
    "content-type": "application/octet-stream",
    ...Object.fromEntries(names.map((name) => [name, headerOf(request, name)])),
    ...(coding.length > 0 && { "content-encoding": coding.join(", ") }),
  };
}

/** What an answer to a writer says about how the object is encrypted. */
export function encryptionOf(headers: ObjectHeaders): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => name.startsWith("x-amz-server-side-encryption")),
  );
}

/** What a writer wants to hold. Throws `S3Error` for what S3 does not know either. */
export function conditionOf(request: S3Request): Condition | null {
  const [absent, same] = [headerOf(request, "if-none-match"), headerOf(request, "if-match")];
  if (absent === "" && same === "") return null;
  if (absent !== "" && same !== "") throw new S3Error("NotImplemented", "both conditions at once");
  if (absent !== "" && absent !== "*") throw new S3Error("NotImplemented", "If-None-Match takes nothing but *");
  if (same === "*") throw new S3Error("NotImplemented", "If-Match takes no *");
  return absent === "" ? { kind: "same", etag: `"${same.replaceAll('"', "")}"` } : { kind: "absent" };
}

/** An etag that nothing else has; of as many parts, where it is of any. */
export function newEtag(parts?: number): string {
  return `"${randomBytes(16).toString("hex")}${parts === undefined ? "" : `-${parts}`}"`;
}

export function wholeSeconds(ms: number): number {
  return Math.floor(ms / 1_000) * 1_000;
}
