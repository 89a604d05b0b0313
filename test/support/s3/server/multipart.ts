import { xmlDocument, elements, elementText, type Content } from "./xml.js";
import type { StoredObject } from "./bucket.js";
import { checksumNames } from "./checksums.js";
import { conditionOf, encryptionOf, keptHeaders, newEtag, wholeSeconds, type Answer, type Call } from "./operation.js";
import { receiveFile, receiveText } from "./receive.js";
import { S3Error } from "./s3-error.js";
import { numberIn } from "./s3-request.js";
import type { NamedPart, Upload } from "./uploads.js";

const maxParts = 10_000;
const maxListed = 1_000;

export function createMultipartUpload({ request, uploads, nowMs }: Call): Answer {
  const upload = uploads.start({ key: request.key, startedMs: nowMs, headers: keptHeaders(request) });
  const content = { Bucket: request.bucket, Key: request.key, UploadId: upload.id };
  return {
    status: 200,
    headers: encryptionOf(upload.headers),
    body: xmlDocument("InitiateMultipartUploadResult", content),
  };
}

export async function uploadPart({ request, bucket, uploads, incoming, nowMs }: Call): Promise<Answer> {
  const number = Number(request.query["partNumber"]);
  if (!Number.isInteger(number) || number < 1 || number > maxParts)
    throw new S3Error("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive");
  const upload = uploads.find(request.query["uploadId"] ?? "", request.key);
  const file = bucket.newFile();
  const { size, checksum } = await receiveFile(incoming, bucket.pathOf(file), false);
  const part = { number, file, size, checksum, etag: newEtag(), modifiedMs: nowMs };
  try {
    uploads.add(upload, part);
  } catch (error) {
    bucket.discard([part]);
    throw error;
  }
  const checksums = checksum === null ? {} : { [`x-amz-checksum-${checksum.name}`]: checksum.value };
  return { status: 200, headers: { etag: part.etag, ...checksums, ...encryptionOf(upload.headers) } };
}

export async function completeMultipartUpload(call: Call): Promise<Answer> {
  const { request, bucket, uploads, incoming } = call;
  const condition = conditionOf(request);
  const named = elements(await receiveText(incoming), "Part").map(namedPart);
  const upload = uploads.find(request.query["uploadId"] ?? "", request.key);
  const parts = uploads.chosen(upload, named);
  const object: StoredObject = {
    key: request.key,
    size: parts.reduce((sum, { size }) => sum + size, 0),
    etag: newEtag(parts.length),
    modifiedMs: wholeSeconds(call.nowMs),
    headers: upload.headers,
    checksum: null,
    segments: parts.map(({ file, size }) => ({ file, size })),
  };
  bucket.put(object, condition, call.since);
  uploads.end(upload, parts);
  const content = { Bucket: request.bucket, Key: request.key, ETag: object.etag };
  return {
    status: 200,
    headers: encryptionOf(object.headers),
    body: xmlDocument("CompleteMultipartUploadResult", content),
  };
}

function namedPart(text: string): NamedPart {
  const checksums = checksumNames.flatMap((name) => {
    const value = elementText(text, `Checksum${name.toUpperCase()}`);
    return value === undefined ? [] : [[name, value] as const];
  });
  return {
    number: Number(elementText(text, "PartNumber")),
    etag: elementText(text, "ETag") ?? "",
    checksums: Object.fromEntries(checksums),
  };
}

export function abortMultipartUpload({ request, uploads }: Call): Answer {
  uploads.end(uploads.find(request.query["uploadId"] ?? "", request.key), []);
  return { status: 204 };
}

export function listParts({ request, uploads }: Call): Answer {
  const upload = uploads.find(request.query["uploadId"] ?? "", request.key);
  const most = numberIn(request, "max-parts", { least: 1, most: maxListed, usual: maxListed });
  const after = numberIn(request, "part-number-marker", { least: 0, most: maxParts, usual: 0 });
  const left = upload.parts.filter(({ number }) => number > after);
  const parts = left.slice(0, most);
  const body = xmlDocument("ListPartsResult", {
    Bucket: request.bucket,
    Key: request.key,
    UploadId: upload.id,
    PartNumberMarker: after,
    NextPartNumberMarker: parts.at(-1)?.number ?? after,
    MaxParts: most,
    IsTruncated: left.length > parts.length,
    Part: parts.map(({ number, etag, size, modifiedMs }) => ({
      PartNumber: number,
      LastModified: new Date(modifiedMs).toISOString(),
      ETag: etag,
      Size: size,
    })),
  });
  return { status: 200, body };
}

export function listMultipartUploads({ request, uploads }: Call): Answer {
  const prefix = request.query["prefix"] ?? "";
  const most = numberIn(request, "max-uploads", { least: 1, most: maxListed, usual: maxListed });
  const all = uploads.sorted().filter(({ key }) => key.startsWith(prefix));
  const { "key-marker": keyMarker = "", "upload-id-marker": idMarker = "" } = request.query;
  const from = keyMarker === "" ? 0 : startAfter(all, keyMarker, idMarker);
  const page = all.slice(from, from + most);
  const isTruncated = all.length > from + page.length;
  const last = page.at(-1);
  const body = xmlDocument("ListMultipartUploadsResult", {
    Bucket: request.bucket,
    Prefix: prefix,
    KeyMarker: keyMarker,
    UploadIdMarker: idMarker,
    MaxUploads: most,
    IsTruncated: isTruncated,
    ...(isTruncated && last && { NextKeyMarker: last.key, NextUploadIdMarker: last.id }),
    Upload: page.map(({ key, id, startedMs }): Content => ({
      Key: key,
      UploadId: id,
      Initiated: new Date(startedMs).toISOString(),
    })),
  });
  return { status: 200, body };
}

/** The index of the first upload behind that one; without an id, behind all of that key. */
function startAfter(all: readonly Upload[], key: string, id: string): number {
  const same = all.findIndex((each) => each.key === key && each.id === id);
  if (same >= 0) return same + 1;
  const later = all.findIndex((each) => Buffer.compare(Buffer.from(each.key), Buffer.from(key)) > 0);
  return later < 0 ? all.length : later;
}
