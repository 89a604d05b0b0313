import { createReadStream } from "node:fs";
import { preconditionFailed, type Bucket, type StoredObject } from "./bucket.js";
import { conditionOf, encryptionOf, keptHeaders, newEtag, wholeSeconds, type Answer, type Call } from "./operation.js";
import { receiveFile, receiveText } from "./receive.js";
import { S3Error } from "./s3-error.js";
import { headerOf, type S3Request } from "./s3-request.js";
import { elements, elementText, xmlDocument } from "./xml.js";

/** Up to this size an etag is the MD5 of the content, as with S3, so the same content has the same one; for more that takes too long. */
const maxMd5Bytes = 8 * 1024 ** 2;
const maxRemovals = 1_000;
const pieceBytes = 1_048_576;

export async function putObject(call: Call): Promise<Answer> {
  const { request, bucket, incoming } = call;
  if (headerOf(request, "x-amz-copy-source") !== "") throw new S3Error("NotImplemented", "copies are not made here");
  const condition = conditionOf(request);
  const file = bucket.newFile();
  const length = Number(headerOf(request, "x-amz-decoded-content-length") || headerOf(request, "content-length"));
  const { size, md5, checksum } = await receiveFile(incoming, bucket.pathOf(file), length <= maxMd5Bytes);
  const object: StoredObject = {
    key: request.key,
    size,
    etag: md5 === null ? newEtag() : `"${md5}"`,
    modifiedMs: wholeSeconds(call.nowMs),
    headers: keptHeaders(request),
    checksum,
    segments: [{ file, size }],
  };
  commit(call, object, condition);
  return { status: 200, headers: { etag: object.etag, ...checksumHeader(object), ...encryptionOf(object.headers) } };
}

function commit({ bucket, since }: Call, object: StoredObject, condition: ReturnType<typeof conditionOf>): void {
  try {
    bucket.put(object, condition, since);
  } catch (error) {
    bucket.discard(object.segments);
    throw error;
  }
}

/** Also the head of it alone. */
export function getObject({ request, bucket }: Call): Answer {
  const object = bucket.find(request.key);
  if (object === undefined) throw new S3Error("NoSuchKey", "The specified key does not exist.", { Key: request.key });
  checkReading(request, object);
  const range = rangeOf(request, object.size);
  const { start, end } = range ?? { start: 0, end: object.size };
  const headers = {
    ...object.headers,
    etag: object.etag,
    "last-modified": new Date(object.modifiedMs).toUTCString(),
    "accept-ranges": "bytes",
    "content-length": String(end - start),
    ...(range && { "content-range": `bytes ${start}-${end - 1}/${object.size}` }),
    ...(range === null && headerOf(request, "x-amz-checksum-mode") === "ENABLED" && checksumHeader(object)),
  };
  const status = range === null ? 200 : 206;
  return request.method === "HEAD"
    ? { status, headers }
    : { status, headers, body: contentOf(bucket, object, { start, end }), settled: bucket.hold(object) };
}

function checksumHeader({ checksum }: StoredObject): Record<string, string> {
  if (checksum === null) return {};
  return { [`x-amz-checksum-${checksum.name}`]: checksum.value, "x-amz-checksum-type": "FULL_OBJECT" };
}

function checkReading(request: S3Request, { etag }: StoredObject): void {
  const names = (name: string): string[] => headerOf(request, name).split(/ *, */).map(unquoted);
  const has = (name: string): boolean => names(name).includes(unquoted(etag)) || names(name).includes("*");
  if (headerOf(request, "if-modified-since") !== "" || headerOf(request, "if-unmodified-since") !== "")
    throw new S3Error("NotImplemented", "conditions on the time are not known here");
  if (headerOf(request, "if-match") !== "" && !has("if-match")) throw preconditionFailed("If-Match");
  if (headerOf(request, "if-none-match") !== "" && has("if-none-match"))
    throw new S3Error("NotModified", "Not Modified");
}

function unquoted(text: string): string {
  return text.replaceAll('"', "");
}

/** null where it is none that S3 heeds, which then answers with all. */
function rangeOf(request: S3Request, size: number): { start: number; end: number } | null {
  const match = /^bytes=(\d*)-(\d*)$/.exec(headerOf(request, "range"));
  const [, from = "", to = ""] = match ?? [];
  if (match === null || (from === "" && to === "")) return null;
  const start = from === "" ? Math.max(0, size - Number(to)) : Number(from);
  const end = from === "" || to === "" ? size : Math.min(size, Number(to) + 1);
  if (from !== "" && to !== "" && Number(from) > Number(to)) return null;
  if (start >= size) throw new S3Error("InvalidRange", "The requested range is not satisfiable");
  return { start, end };
}

async function* contentOf(
  bucket: Bucket,
  object: StoredObject,
  { start, end }: { start: number; end: number },
): AsyncGenerator<Buffer> {
  let at = 0;
  for (const { file, size } of object.segments) {
    const [from, to] = [Math.max(0, start - at), Math.min(size, end - at)];
    at += size;
    if (from >= to) continue;
    const options = { start: from, end: to - 1, highWaterMark: pieceBytes };
    yield* createReadStream(bucket.pathOf(file), options) as AsyncIterable<Buffer>;
  }
}

export function deleteObject({ request, bucket }: Call): Answer {
  if (headerOf(request, "if-match") !== "") throw new S3Error("NotImplemented", "conditions of removals are not known");
  bucket.remove(request.key);
  return { status: 204 };
}

export async function deleteObjects({ request, bucket, incoming }: Call): Promise<Answer> {
  const isSummed = Object.keys(request.http.headers).some(
    (name) => name === "content-md5" || /^x-amz-(checksum-(?!algorithm)|trailer$)/.test(name),
  );
  if (!isSummed) throw new S3Error("InvalidRequest", "Missing required header for this request: Content-MD5");
  const text = await receiveText(incoming);
  const keys = elements(text, "Object").map((each) => elementText(each, "Key") ?? "");
  if (keys.length === 0 || keys.length > maxRemovals || keys.includes(""))
    throw new S3Error("MalformedXML", "The XML you provided was not well-formed");
  for (const key of keys) bucket.remove(key);
  const isQuiet = elementText(text, "Quiet") === "true";
  return { status: 200, body: xmlDocument("DeleteResult", isQuiet ? {} : { Deleted: keys.map((Key) => ({ Key })) }) };
}
