import { createHash } from "node:crypto";
import { SignatureV4 } from "@smithy/signature-v4";
import { Sha256 } from "../../sha256.js";
import { S3Chunks } from "./s3-chunks.js";
import { answer, headerOf, type Exchange } from "./wire.js";

/** Where and when something was signed for. */
export interface Scope {
  readonly accessKeyId: string;
  /** such as "20260101/us-east-1/s3/aws4_request" */
  readonly scope: string;
  readonly date: Date;
  readonly signedHeaders: readonly string[];
  readonly signature: string;
}

/**
 * Takes what is signed rightly, as Amazon's S3 does: by header, as a presigned URL, and in signed chunks. What the signature must be is
 * computed by the signer of AWS's SDK.
 */
export async function serveS3(exchange: Exchange): Promise<void> {
  const verdict = await check(exchange).catch((error: unknown) => `wrong: ${String(error)}`);
  exchange.found(verdict);
  if (verdict.startsWith("right")) answer(exchange, 200, `${verdict}\n`);
  else answer(exchange, 403, `<Error><Code>SignatureDoesNotMatch</Code><Message>${verdict}</Message></Error>\n`);
}

async function check(exchange: Exchange): Promise<string> {
  const body = await exchange.body();
  const { url, options } = exchange;
  const isPresigned = url.searchParams.has("X-Amz-Signature");
  const signed = isPresigned ? fromQuery(url) : fromHeader(exchange);
  if (signed.accessKeyId !== options.aws.accessKeyId) return `wrong: no such access key ${signed.accessKeyId}`;
  const [, region = "", service = ""] = signed.scope.split("/");
  const signer = new SignatureV4({
    service,
    region,
    credentials: options.aws,
    sha256: Sha256,
    uriEscapePath: false,
    applyChecksum: false,
  });
  const expected = isPresigned
    ? await presigned(exchange, signer, signed)
    : await byHeader(exchange, signer, signed, body);
  if (expected !== signed.signature) return `wrong: the signature is not ${expected}`;
  if (isPresigned) return "right: presigned";
  const payload = headerOf(exchange, "x-amz-content-sha256");
  if (payload.startsWith("STREAMING-")) return new S3Chunks(signer, signed, payload).check(body);
  if (payload !== "" && payload !== "UNSIGNED-PAYLOAD" && payload !== createHash("sha256").update(body).digest("hex"))
    return "wrong: the body is not what was signed";
  return "right: signed by header";
}

function fromHeader(exchange: Exchange): Scope {
  const text = headerOf(exchange, "authorization");
  const pattern = /^AWS4-HMAC-SHA256 Credential=([^/,]+)\/([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/;
  const [, accessKeyId = "", scope = "", names = "", signature = ""] = pattern.exec(text) ?? [];
  const date = dateOf(headerOf(exchange, "x-amz-date"));
  return { accessKeyId, scope, date, signedHeaders: names.split(";"), signature };
}

function fromQuery({ searchParams }: URL): Scope {
  const [accessKeyId = "", ...scope] = (searchParams.get("X-Amz-Credential") ?? "").split("/");
  return {
    accessKeyId,
    scope: scope.join("/"),
    date: dateOf(searchParams.get("X-Amz-Date") ?? ""),
    signedHeaders: (searchParams.get("X-Amz-SignedHeaders") ?? "").split(";"),
    signature: searchParams.get("X-Amz-Signature") ?? "",
  };
}

function dateOf(text: string): Date {
  return new Date(text.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"));
}

function requestOf(exchange: Exchange, { signedHeaders }: Scope, leftOut: readonly string[]) {
  const { request, url } = exchange;
  const named = signedHeaders.map((name): [string, string] => [
    name,
    name === "host" ? (request.headers.host ?? (request.headers[":authority"] as string)) : headerOf(exchange, name),
  ]);
  const query = [...url.searchParams].filter(([name]) => !leftOut.includes(name));
  return {
    method: request.method ?? "",
    protocol: "https:",
    hostname: url.hostname,
    path: url.pathname,
    query: Object.fromEntries(query),
    headers: Object.fromEntries(named),
  };
}

async function byHeader(exchange: Exchange, signer: SignatureV4, scope: Scope, body: Buffer): Promise<string> {
  const request = { ...requestOf(exchange, scope, []), body };
  const options = { signingDate: scope.date, signableHeaders: new Set(scope.signedHeaders) };
  const { headers } = await signer.sign(request, options);
  return /Signature=(.*)$/.exec(headers["authorization"] ?? "")?.[1] ?? "";
}

async function presigned(exchange: Exchange, signer: SignatureV4, scope: Scope): Promise<string> {
  const made = ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"].map(
    (name) => `X-Amz-${name}`,
  );
  const request = requestOf(exchange, scope, made);
  request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD";
  const unsigned = new Set(["x-amz-content-sha256"]);
  const expiresIn = Number(exchange.url.searchParams.get("X-Amz-Expires"));
  const options = { signingDate: scope.date, expiresIn, unsignableHeaders: unsigned, unhoistableHeaders: unsigned };
  const { query } = await signer.presign(request, options);
  return String(query?.["X-Amz-Signature"]);
}
