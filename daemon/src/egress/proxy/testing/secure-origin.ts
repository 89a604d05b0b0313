import { createSecureServer, type Http2SecureServer } from "node:http2";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { createServer, type Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { SecureContext } from "node:tls";
import { serverContext } from "./secret-bed.js";

/** One request as a server got it. */
export interface Seen {
  readonly line: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
  readonly version: string;
  readonly trailers: Readonly<Record<string, string | string[] | undefined>>;
}

type AnyRequest = IncomingMessage | Http2ServerRequest;
type AnyResponse = ServerResponse | Http2ServerResponse;
export type Answer = (request: AnyRequest, response: AnyResponse, body: string) => void;

const ok: Answer = (request, response, body) => void (response as ServerResponse).end(`<ok ${request.url} ${body}>`);

/** A server by TLS that keeps every request, by HTTP/1.1 or, with `h2`, by both. */
export function secureOrigin(
  name: string,
  seen: Seen[],
  {
    h2 = false,
    answer = ok,
    context = serverContext(name),
  }: { h2?: boolean; answer?: Answer; context?: SecureContext } = {},
): Server {
  const options = {
    SNICallback: (_: string, done: (error: null, context: SecureContext) => void) => done(null, context),
  };
  const serve = (request: AnyRequest, response: AnyResponse): void => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString("latin1")));
    request.on("error", () => undefined);
    request.on("end", () => {
      const { method, url, headers, httpVersion: version, trailers } = request;
      seen.push({ line: `${method} ${url}`, headers, body, version, trailers });
      answer(request, response, body);
    });
  };
  const server: Server | Http2SecureServer = h2
    ? createSecureServer({ ...options, allowHTTP1: true }, serve)
    : createServer(options, serve);
  server.on("tlsClientError", () => undefined);
  server.on("sessionError", () => undefined);
  return server as Server;
}
