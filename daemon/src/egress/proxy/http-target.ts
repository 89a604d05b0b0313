import type { IncomingMessage } from "node:http";
import { parseHostName } from "./host-name.js";

/** What a request is for. */
export interface Target {
  readonly name: string;
  /** path and query as the client wrote them, or `*` */
  readonly path: string;
}

/** A request that is refused whatever the policy says, since it is not certain what it means. */
export class BadRequest extends Error {
  override readonly name = "BadRequest";
}

/** The values of one field, in order; the name is in lower case. */
export function valuesOf(rawHeaders: readonly string[], field: string): string[] {
  return rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === field);
}

/** Reads the Host field and the target, which must agree. Throws `BadRequest`. */
export function targetOf(request: IncomingMessage): Target {
  const hosts = valuesOf(request.rawHeaders, "host");
  if (hosts.length !== 1) throw new BadRequest(hosts.length === 0 ? "no Host field" : "more than one Host field");
  const name = nameOf(hosts[0] ?? "");
  if (name === null) throw new BadRequest("a Host field that is not a name on port 80");
  const target = request.url ?? "";
  if (target.startsWith("/")) return { name, path: target };
  if (target === "*" && request.method === "OPTIONS") return { name, path: "*" };
  const absolute = /^http:\/\/([^/?#]*)(.*)$/is.exec(target);
  if (absolute === null) throw new BadRequest("a target that is neither a path nor an http URL");
  if (nameOf(absolute[1] ?? "") !== name) throw new BadRequest("a target that does not agree with the Host field");
  const path = absolute[2] ?? "";
  if (path === "" && request.method === "OPTIONS") return { name, path: "*" };
  return { name, path: path.startsWith("/") ? path : `/${path}` };
}

/** Null for all but a host name, on no other port than 80. */
function nameOf(authority: string): string | null {
  const match = /^([^:]*)(?::0*80)?$/.exec(authority);
  return match === null ? null : parseHostName(match[1] ?? "");
}

/** Throws `BadRequest` where the length of the body could be read in more than one way. Node's parser refuses most of it before. */
export function checkFraming(request: IncomingMessage): void {
  if (!/^1\.[01]$/.test(request.httpVersion)) throw new BadRequest("another version than HTTP/1.0 and 1.1");
  const codings = valuesOf(request.rawHeaders, "transfer-encoding");
  const lengths = valuesOf(request.rawHeaders, "content-length");
  if (codings.length > 0 && (request.httpVersion !== "1.1" || !isChunked(codings))) {
    throw new BadRequest("a transfer coding other than chunked");
  }
  if (lengths.length > 1 || (lengths.length === 1 && codings.length > 0)) {
    throw new BadRequest("a body of more than one length");
  }
  if (request.rawHeaders.some((text) => /[\r\n\0]/.test(text))) throw new BadRequest("a field of more than one line");
}

export function isChunked(codings: readonly string[]): boolean {
  return codings.length === 1 && codings[0]?.toLowerCase() === "chunked";
}

export function hasBody(request: IncomingMessage): boolean {
  return (
    valuesOf(request.rawHeaders, "transfer-encoding").length > 0 ||
    valuesOf(request.rawHeaders, "content-length").some((length) => !/^0+$/.test(length))
  );
}

/** Whether a request is to change over to WebSocket. Other upgrades, such as to HTTP/2, are not passed on; a server need not do them. */
export function wantsWebSocket(request: IncomingMessage): boolean {
  return (
    request.method === "GET" &&
    request.httpVersion === "1.1" &&
    !hasBody(request) &&
    valuesOf(request.rawHeaders, "upgrade").join().toLowerCase() === "websocket"
  );
}
