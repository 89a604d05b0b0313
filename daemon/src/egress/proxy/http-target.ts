import type { IncomingMessage } from "node:http";
import { readAuthority, type HostAndPort } from "./host.js";
import { valuesOf } from "./http-fields.js";
import { BadRequest } from "./message.js";

/** What a request is for. */
export interface Target {
  /** or an address, where the client speaks to the proxy itself */
  readonly name: string;
  readonly port: number;
  /** path and query as the client wrote them, or `*` */
  readonly path: string;
}

/** What requests of a connection may be for. */
export interface Scope {
  /** whether the connection is TLS that was meant for the server */
  readonly secure: boolean;
  /** the only name that they may be for, as TLS has it; null: each says it for itself */
  readonly expected: string | null;
  /** whether the client knows that it speaks to a proxy, and so names whole URLs */
  readonly explicit: boolean;
}

/** Reads the Host field and the target, which must agree with each other and with the connection. Throws `BadRequest`. */
export function targetOf(request: IncomingMessage, scope: Scope): Target {
  const hosts = valuesOf(request.rawHeaders, "host");
  if (hosts.length !== 1) throw new BadRequest(hosts.length === 0 ? "no Host field" : "more than one Host field");
  const authority = authorityOf(hosts[0] ?? "", scope, "a Host field");
  const target = request.url ?? "";
  if (scope.explicit && !/^http:/i.test(target)) throw new BadRequest("a target that is not an http URL");
  const { name, port } = authority;
  if (target.startsWith("/")) return { name, port, path: target };
  if (target === "*" && request.method === "OPTIONS") return { name, port, path: "*" };
  const absolute = (scope.secure ? /^https:\/\/([^/?#]*)(.*)$/is : /^http:\/\/([^/?#]*)(.*)$/is).exec(target);
  if (absolute === null)
    throw new BadRequest(`a target that is neither a path nor an ${scope.secure ? "https" : "http"} URL`);
  const named = readAuthority(absolute[1] ?? "", usualPort(scope), { addresses: scope.explicit });
  if (named?.name !== name || named.port !== port)
    throw new BadRequest("a target that does not agree with the Host field");
  const path = absolute[2] ?? "";
  if (path === "" && request.method === "OPTIONS") return { name, port, path: "*" };
  return { name, port, path: path.startsWith("/") ? path : `/${path}` };
}

/** The name and port of a Host field or of `:authority`, which must be those of the connection. Throws `BadRequest`. */
export function authorityOf(text: string, scope: Scope, what: string): HostAndPort {
  const usual = usualPort(scope);
  const authority = readAuthority(text, usual, { addresses: scope.explicit });
  if (authority === null || (!scope.explicit && authority.port !== usual))
    throw new BadRequest(`${what} that is not a name${scope.explicit ? " or an address" : ` on port ${usual}`}`);
  if (scope.expected !== null && authority.name !== scope.expected)
    throw new BadRequest(`${what} that is not the name of the TLS connection`, 421);
  return authority;
}

function usualPort({ secure }: Scope): number {
  return secure ? 443 : 80;
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
