import type { IncomingMessage } from "node:http";
import { isChunked, valuesOf } from "./http-target.js";

/** Meant for the next machine only. Source: RFC 9110, section 7.6.1, and what is in use besides */
const hopByHop = new Set([
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "transfer-encoding",
  "upgrade",
]);
/** Never hop-by-hop, even where the Connection field says so, as they decide what the message is. */
const essential = new Set(["content-length", "expect", "host", "trailer"]);
/** Mean something other than they say where a server takes trailers for fields. Source: RFC 9110, section 6.5.1 */
const notInTrailers = new Set([...hopByHop, ...essential, "authorization", "cookie", "set-cookie"]);

/** Methods that Node takes to have no body unless it is told, and so gives no length. */
const bodiless = new Set(["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"]);

/**
 * The fields of a request as the server gets them, in the form of `rawHeaders`: `name` is what was checked, `then` what becomes of the
 * connection, as in the Connection field.
 */
export function requestFields(
  request: IncomingMessage,
  name: string,
  then: "keep-alive" | "close" | "Upgrade",
): string[] {
  const { rawHeaders } = request;
  const fields = passedOn(rawHeaders).map(([field, value]) => [field, field.toLowerCase() === "host" ? name : value]);
  const chunked = valuesOf(rawHeaders, "transfer-encoding").length > 0;
  const connection: string[] = [then];
  if (chunked) fields.push(["Transfer-Encoding", "chunked"]);
  else if (!bodiless.has(request.method ?? "") && valuesOf(rawHeaders, "content-length").length === 0) {
    fields.push(["Content-Length", "0"]);
  }
  if (then === "Upgrade") fields.push(["Upgrade", "websocket"]);
  if (/(?:^|,)\s*trailers\s*(?:,|$)/i.test(valuesOf(rawHeaders, "te").join())) {
    fields.push(["TE", "trailers"]);
    connection.push("TE");
  }
  fields.push(["Connection", connection.join(", ")]);
  return fields.filter(([field]) => chunked || field?.toLowerCase() !== "trailer").flat();
}

/** The fields of an answer as the client gets them; null where the server used a coding that cannot be passed on. */
export function answerFields(answer: IncomingMessage, client: IncomingMessage): string[] | null {
  const codings = valuesOf(answer.rawHeaders, "transfer-encoding");
  if (codings.length > 0 && !isChunked(codings)) return null;
  // Node writes trailers into chunked bodies only, and insists on it
  const trailers = codings.length > 0 && client.httpVersion === "1.1" && client.method !== "HEAD";
  return passedOn(answer.rawHeaders)
    .filter(([field]) => trailers || field.toLowerCase() !== "trailer")
    .flat();
}

/** The fields of an answer that changes over to WebSocket. */
export function upgradeFields(answer: IncomingMessage): string[] {
  return [...passedOn(answer.rawHeaders).flat(), "Connection", "Upgrade", "Upgrade", "websocket"];
}

/** The trailers of a message that arrived as a whole. */
export function trailersOf(message: IncomingMessage): [string, string][] {
  return pairs(message.rawTrailers).filter(([field]) => !notInTrailers.has(field.toLowerCase()));
}

/** The head of an informational answer, or of a change over to another protocol. */
export function renderHead(status: number, text: string, fields: readonly string[]): string {
  const lines = pairs(fields).map(([field, value]) => `${field}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${text}\r\n${lines.join("")}\r\n`;
}

function passedOn(rawHeaders: readonly string[]): [string, string][] {
  const named = valuesOf(rawHeaders, "connection")
    .flatMap((value) => value.split(","))
    .map((token) => token.trim().toLowerCase());
  const dropped = new Set([...hopByHop, ...named.filter((field) => !essential.has(field))]);
  return pairs(rawHeaders).filter(([field]) => !dropped.has(field.toLowerCase()));
}

function pairs(flat: readonly string[]): [string, string][] {
  const result: [string, string][] = [];
  for (let index = 0; index + 1 < flat.length; index += 2) result.push([flat[index] ?? "", flat[index + 1] ?? ""]);
  return result;
}
