import type { IncomingMessage } from "node:http";
import type { Fields, ReadFields } from "./message.js";

/** Meant for the next machine only. Source: RFC 9110, section 7.6.1, and what is in use besides */
const hopByHop: ReadonlySet<string> = new Set([
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

/** The values of one field, in order; the name is in lower case. */
export function valuesOf(rawHeaders: readonly string[], field: string): string[] {
  const values: string[] = [];
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? "";
    if (name.length === field.length && name.toLowerCase() === field) values.push(rawHeaders[index + 1] ?? "");
  }
  return values;
}

/** What of a message's fields is not for the next machine only, in order and as written. */
export function passedOn(rawHeaders: readonly string[]): Fields {
  let dropped = hopByHop;
  const connection = valuesOf(rawHeaders, "connection").join().toLowerCase();
  if (connection !== "" && connection !== "keep-alive" && connection !== "close") {
    const named = connection.split(",").map((token) => token.trim());
    dropped = new Set([...hopByHop, ...named.filter((field) => !essential.has(field))]);
  }
  return pairs(rawHeaders).filter(([field]) => !dropped.has(field.toLowerCase()));
}

/** The trailers of a message that arrived as a whole. */
export function trailersOf(message: IncomingMessage): Fields {
  return trailerFields(pairs(message.rawTrailers));
}

/** Those that may be passed on as trailers. */
export function trailerFields(fields: ReadFields): Fields {
  return fields
    .filter(([field]) => !notInTrailers.has(field.toLowerCase()) && !field.startsWith(":"))
    .map(([field, value]) => [field, value]);
}

export function without(fields: ReadFields, ...names: readonly string[]): Fields {
  return fields.filter(([field]) => !names.includes(field.toLowerCase())).map(([field, value]) => [field, value]);
}

/** The head of an informational answer, or of a change over to another protocol. */
export function renderHead(status: number, text: string, fields: ReadFields): string {
  const lines = fields.map(([field, value]) => `${field}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${text}\r\n${lines.join("")}\r\n`;
}

export function pairs(flat: readonly string[]): Fields {
  const result: Fields = [];
  for (let index = 0; index + 1 < flat.length; index += 2) result.push([flat[index] ?? "", flat[index + 1] ?? ""]);
  return result;
}
