import { createHash } from "node:crypto";
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createHttp2 } from "node:http2";
import { createServer as createTcp, type Socket } from "node:net";
import { createSecureContext, createServer as createTls, type SecureContext, type TLSSocket } from "node:tls";
import { WebSocketServer } from "ws";
import { issue, type KeyPair, type LeafRequest } from "../authority.js";
import { serve } from "./endpoints.js";
import { hostileEndpoints } from "./hostile.js";
import type { Exchange, Received, ServerOptions } from "./wire.js";

/**
 * The servers that secrets are for, and those that would like to have them, as one process in the tests' internet: see ../server.ts. What is
 * there depends on the name in the hello of TLS. It tells its parent all that arrives.
 */

const maxBody = 16 * 1_048_576;
const shownBody = 524_288;
const options = JSON.parse(process.argv[2] ?? "{}") as ServerOptions;

const leaves: Readonly<Record<string, LeafRequest>> = {
  "": { names: ["*.example.com", "example.com", "*.example.net"] },
  "wrong.bad.example.com": { names: ["right.bad.example.com"] },
  "expired.bad.example.com": { names: ["expired.bad.example.com"], expired: true },
  "unknown.bad.example.com": { names: ["unknown.bad.example.com"], selfSigned: true },
};
const pairs = Object.entries(leaves).map(([name, leaf]): [string, KeyPair] => [name, issue(leaf)]);
const contexts = new Map<string, SecureContext>(pairs.map(([name, pair]) => [name, createSecureContext(pair)]));
const usual = pairs.find(([name]) => name === "")?.[1];
/** names that speak HTTP/1.1 only */
const isOld = (name: string | undefined): boolean => /^(h1|hostile)\./.test(name ?? "");

type Place = Pick<Received, "address" | "secure" | "serverName">;

function placeOf(socket: Socket | TLSSocket): Place {
  const secure = "encrypted" in socket;
  return { address: socket.localAddress ?? "", secure, serverName: secure ? socket.servername || "" : "" };
}

function tell(received: Place & Partial<Received> & Pick<Received, "kind">): void {
  const nothing = {
    version: "",
    method: "",
    target: "",
    headers: [],
    trailers: [],
    body: "",
    bodyBytes: 0,
    bodyHash: "",
  };
  process.send?.({ ...nothing, complete: true, verdict: "", ...received } satisfies Received);
}

function fieldsOf(raw: readonly string[]): [string, string][] {
  return raw.flatMap((name, index): [string, string][] => (index % 2 === 0 ? [[name, raw[index + 1] ?? ""]] : []));
}

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  // asked now, since that of HTTP/2 says nothing any more once its session has ended
  const place = placeOf(request.socket);
  const hash = createHash("sha256");
  const kept: Buffer[] = [];
  let [bytes, complete, verdict] = [0, false, ""];
  const body = new Promise<Buffer>((resolve) => {
    request.on("end", () => {
      complete = true;
      resolve(Buffer.concat(kept));
    });
  });
  request.on("data", (piece: Buffer) => {
    hash.update(piece);
    if (bytes < maxBody) kept.push(piece);
    bytes += piece.length;
  });
  response.on("error", () => undefined);
  request.on("error", () => undefined);
  const report = (): void =>
    tell({
      kind: "request",
      ...place,
      version: request.httpVersion,
      method: request.method ?? "",
      target: request.url ?? "",
      headers: fieldsOf(request.rawHeaders),
      trailers: fieldsOf(request.rawTrailers),
      body: Buffer.concat(kept).toString("latin1", 0, shownBody),
      bodyBytes: bytes,
      bodyHash: hash.digest("hex"),
      complete,
      verdict,
    });
  let reported = false;
  const reportOnce = (): void => {
    if (!reported) report();
    reported = true;
  };
  response.on("finish", () => (complete ? reportOnce() : request.once("end", reportOnce)));
  response.on("close", reportOnce);
  const exchange: Exchange = {
    request,
    response,
    url: new URL(request.url ?? "/", "https://example.com"),
    body: () => body,
    found: (what) => (verdict = what),
    options,
  };
  const misbehave = place.serverName.startsWith("hostile.") ? hostileEndpoints[exchange.url.pathname] : undefined;
  await (misbehave ?? serve)(exchange);
}

const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
  handle(request, response).catch((error: unknown) => {
    if (!response.destroyed) console.error(error);
    response.destroy();
  });
};
// takes what is not quite HTTP for HTTP, as the servers do that requests are smuggled to
const http = createHttp({ insecureHTTPParser: true, maxHeaderSize: 262_144 }, onRequest);
http.on("checkContinue", (request: IncomingMessage, response: ServerResponse) => {
  response.writeContinue();
  onRequest(request, response);
});
http.on("clientError", (_error, socket) => socket.destroy());
const http2 = createHttp2({}, onRequest as never);
http2.on("sessionError", () => undefined);

const webSockets = new WebSocketServer({ noServer: true, perMessageDeflate: true });
http.on("upgrade", (request: IncomingMessage, socket: Socket, rest: Buffer) => {
  const { rawHeaders, method = "", url: target = "", httpVersion: version } = request;
  const place = placeOf(socket);
  tell({ kind: "request", ...place, method, target, version, headers: fieldsOf(rawHeaders) });
  webSockets.handleUpgrade(request, socket, rest, (webSocket) => {
    webSocket.on("error", () => undefined);
    webSocket.on("message", (data, isBinary) => {
      const body = (data as Buffer).toString("latin1");
      tell({ kind: "message", ...place, target, body, bodyBytes: body.length, method: isBinary ? "binary" : "text" });
      webSocket.send(data, { binary: isBinary });
    });
  });
});

for (const address of options.addresses) {
  createTcp((socket) => http.emit("connection", socket)).listen(80, address);
  const secure = createTls({
    ...usual, // for who says no name
    SNICallback: (name, done) => done(null, contexts.get(name) ?? contexts.get("")),
    ALPNCallback: ({ servername, protocols }) => {
      const known = isOld(servername) ? ["http/1.1"] : ["h2", "http/1.1"];
      return known.find((each) => protocols.includes(each));
    },
  });
  secure.on("tlsClientError", () => undefined);
  secure.on("secureConnection", (socket) => {
    socket.on("error", () => undefined);
    tell({ kind: "hello", ...placeOf(socket) });
    (socket.alpnProtocol === "h2" ? http2 : http).emit("connection", socket);
  });
  secure.listen(443, address);
}
process.on("message", () => process.send?.("settled"));
process.on("disconnect", () => process.exit());
setTimeout(() => process.send?.("ready"), 100);
