import type { Answer, Call } from "./operation.js";
import { S3Error } from "./s3-error.js";
import { numberIn } from "./s3-request.js";
import { xmlDocument } from "./xml.js";

const maxListed = 1_000;

export function headBucket(): Answer {
  return { status: 200 };
}

export function listObjects({ request, bucket }: Call): Answer {
  const { prefix = "", "start-after": startAfter = "", "continuation-token": token } = request.query;
  if (request.query["list-type"] !== "2")
    throw new S3Error("NotImplemented", "only version 2 of listings is known here");
  const isEncoded = request.query["encoding-type"] === "url";
  const shown = (text: string): string => (isEncoded ? encodeURIComponent(text).replaceAll("%2F", "/") : text);
  const most = numberIn(request, "max-keys", { least: 0, most: maxListed, usual: maxListed });
  const after = Buffer.from(token === undefined ? startAfter : keyOf(token));
  const matching = bucket
    .sorted()
    .filter(({ key }) => key.startsWith(prefix) && Buffer.compare(Buffer.from(key), after) > 0);
  const page = matching.slice(0, most);
  const isTruncated = most > 0 && matching.length > page.length;
  const body = xmlDocument("ListBucketResult", {
    Name: request.bucket,
    Prefix: shown(prefix),
    MaxKeys: most,
    KeyCount: page.length,
    IsTruncated: isTruncated,
    ...(isEncoded && { EncodingType: "url" }),
    ...(startAfter !== "" && { StartAfter: shown(startAfter) }),
    ...(token !== undefined && { ContinuationToken: token }),
    ...(isTruncated && { NextContinuationToken: tokenOf(page.at(-1)?.key ?? "") }),
    Contents: page.map(({ key, size, etag, modifiedMs }) => ({
      Key: shown(key),
      LastModified: new Date(modifiedMs).toISOString(),
      ETag: etag,
      Size: size,
      StorageClass: "STANDARD",
    })),
  });
  return { status: 200, body };
}

/** Opaque to clients; recognisable, so that anything else is refused. */
function tokenOf(key: string): string {
  return Buffer.from(`after ${key}`).toString("base64url");
}

function keyOf(token: string): string {
  const text = Buffer.from(token, "base64url").toString();
  if (!text.startsWith("after ")) throw new S3Error("InvalidArgument", "The continuation token provided is incorrect");
  return text.slice("after ".length);
}
