// s3.mjs WAY URL ACCESS_KEY_ID SECRET_ACCESS_KEY: puts something there, signed in one of several ways; prints what was answered.
import { createHash, createHmac } from "node:crypto";
import aws4 from "aws4";

const [way, address, accessKeyId, secretAccessKey] = process.argv.slice(2);
const url = new URL(address);
const credentials = { accessKeyId, secretAccessKey };
const common = { host: url.host, path: url.pathname + url.search, service: "s3", region: "eu-central-1" };
const content = Buffer.alloc(200_000, "something to keep. ");
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const hmac = (key, text) => createHmac("sha256", key).update(text).digest();

async function send(signed, body) {
  const { host: _, Host: __, ...headers } = signed.headers ?? {};
  const response = await fetch(`https://${url.host}${signed.path}`, { method: signed.method ?? "GET", headers, body });
  console.log(response.status, (await response.text()).trim());
}

/** Chunks of which each is signed with the signature before it. */
async function sendChunks(kind, trailer) {
  const isSigned = kind.startsWith("STREAMING-AWS4");
  const headers = {
    "X-Amz-Content-Sha256": kind,
    "X-Amz-Decoded-Content-Length": String(content.length),
    "Content-Encoding": "aws-chunked",
    ...(trailer ? { "X-Amz-Trailer": trailer[0] } : {}),
  };
  const signed = aws4.sign({ ...common, method: "PUT", headers }, credentials);
  const date = signed.headers["X-Amz-Date"];
  const scope = `${date.slice(0, 8)}/${common.region}/s3/aws4_request`;
  const key = scope.split("/").reduce((key, part) => hmac(key, part), `AWS4${secretAccessKey}`);
  let previous = /Signature=(.*)/.exec(signed.headers.Authorization)[1];
  const next = (what, ...hashes) =>
    (previous = hmac(key, [`AWS4-HMAC-SHA256-${what}`, date, scope, previous, ...hashes].join("\n")).toString("hex"));
  const parts = [];
  for (let at = 0; at <= content.length; at += 65_536) {
    const chunks = [content.subarray(at, at + 65_536), ...(at + 65_536 > content.length ? [Buffer.alloc(0)] : [])];
    for (const chunk of chunks) {
      const signature = isSigned ? `;chunk-signature=${next("PAYLOAD", sha256(""), sha256(chunk))}` : "";
      parts.push(`${chunk.length.toString(16)}${signature}\r\n`, chunk, chunk.length > 0 || !trailer ? "\r\n" : "");
    }
  }
  if (trailer) {
    parts.push(`${trailer.join(":")}\r\n`);
    if (isSigned) parts.push(`x-amz-trailer-signature:${next("TRAILER", sha256(`${trailer.join(":")}\n`))}\r\n`);
    parts.push("\r\n");
  }
  await send(signed, Buffer.concat(parts.map((part) => Buffer.from(part))));
}

const checksum = ["x-amz-checksum-sha256", createHash("sha256").update(content).digest("base64")];
const ways = {
  header: () => send(aws4.sign({ ...common, method: "PUT", body: content }, credentials), content),
  unsigned: () =>
    send(
      aws4.sign({ ...common, method: "PUT", headers: { "X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD" } }, credentials),
      content,
    ),
  presigned: () => send(aws4.sign({ ...common, signQuery: true }, credentials)),
  chunks: () => sendChunks("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
  "chunks-trailer": () => sendChunks("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", checksum),
  "unsigned-trailer": () => sendChunks("STREAMING-UNSIGNED-PAYLOAD-TRAILER", checksum),
};
await ways[way]();
