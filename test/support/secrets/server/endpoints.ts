import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import { serveGit } from "./git.js";
import { noise } from "./noise.js";
import { OAuthServer } from "./oauth.js";
import { serveS3 } from "./s3.js";
import { answer, headerOf, type Endpoint, type Exchange } from "./wire.js";

const oauth = new OAuthServer();
const pauseMs = 150;
const encoders = { gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync } as const;

/** What is at each path, or at all below it where that ends with `/`. */
const endpoints: Readonly<Record<string, Endpoint>> = {
  "/record": async (exchange) => {
    await exchange.body();
    answer(exchange, 200, "recorded\n");
  },
  "/echo": echo,
  "/echo-body": async (exchange) => {
    exchange.response.writeHead(200, { "content-type": headerOf(exchange, "content-type") || "text/plain" });
    exchange.response.end(await exchange.body());
  },
  "/events": sendEvents,
  "/trailers": async (exchange) => {
    await exchange.body();
    exchange.response.writeHead(200, { trailer: "X-Echo", "content-type": "text/plain" });
    exchange.response.write("the trailers follow\n");
    exchange.response.addTrailers({ "X-Echo": headerOf(exchange, "authorization") });
    exchange.response.end();
  },
  "/redirect": (exchange) => {
    const token = encodeURIComponent(headerOf(exchange, "authorization").replace(/^Bearer /, ""));
    answer(exchange, 302, "", {
      location: `https://${exchange.url.searchParams.get("to") ?? ""}/taken?token=${token}`,
    });
  },
  "/upload": async (exchange) => {
    for await (const _ of exchange.request); // its record has the sum
    answer(exchange, 200, "uploaded\n");
  },
  "/download": async ({ response, url }) => {
    const bytes = Number(url.searchParams.get("bytes"));
    response.writeHead(200, { "content-type": "application/octet-stream", "content-length": String(bytes) });
    await pipeline(Readable.from(noise(bytes)), response);
  },
  "/oauth/token": (exchange) => oauth.token(exchange),
  "/oauth/resource": (exchange) => oauth.resource(exchange),
  "/oauth/revoke": (exchange) => oauth.revoke(exchange),
  "/s3/": serveS3,
  "/git/": serveGit,
  "/apt/": serveApt,
};

/** Answers whatever is asked for. */
export async function serve(exchange: Exchange): Promise<void> {
  const { pathname } = exchange.url;
  const found = Object.entries(endpoints).find(([path]) =>
    path.endsWith("/") ? pathname.startsWith(path) : path === pathname,
  );
  if (found === undefined) return answer(exchange, 404, "there is nothing here\n");
  await found[1](exchange);
}

/** Sends back what a header says, in one of several ways: `?header=NAME&as=WAY`. */
async function echo(exchange: Exchange): Promise<void> {
  const { response, url } = exchange;
  const value = headerOf(exchange, url.searchParams.get("header") ?? "authorization");
  const status = Number(url.searchParams.get("status") ?? 200);
  const way = url.searchParams.get("as") ?? "text";
  const text = `you said: ${value} and no more\n`;
  switch (way) {
    case "header":
      return answer(exchange, status, "look above\n", {
        "x-echo": value,
        "set-cookie": `echo=${encodeURIComponent(value)}`,
      });
    case "json":
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify({ said: value }));
      return;
    case "chunks": {
      response.writeHead(status, { "content-type": "text/plain" });
      for (let at = 0; at < text.length; at += 7) {
        response.write(text.slice(at, at + 7));
        await sleep(2);
      }
      response.end();
      return;
    }
    case "gzip":
    case "deflate":
    case "br":
      response.writeHead(status, { "content-type": "text/plain", "content-encoding": way });
      response.end(encoders[way](text));
      return;
    default:
      answer(exchange, status, text);
  }
}

/** Three events, some time apart; the second says what the request was authorized with. */
async function sendEvents(exchange: Exchange): Promise<void> {
  const { response } = exchange;
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  for (const data of ["first", headerOf(exchange, "authorization"), "last"]) {
    response.write(`data: ${data}\n\n`);
    await sleep(pauseMs);
  }
  response.end();
}

function serveApt(exchange: Exchange): void {
  if (!hasPassword(exchange)) return;
  const file = join(exchange.options.packages, exchange.url.pathname.slice("/apt/".length));
  if (!existsSync(file)) return answer(exchange, 404, "there is no such file\n");
  exchange.response.writeHead(200, { "content-type": "application/octet-stream" });
  exchange.response.end(readFileSync(file));
}

/** Whether the request has the password by Basic authentication; answers it where it has not. */
export function hasPassword(exchange: Exchange): boolean {
  const [, encoded = ""] = /^Basic (.+)$/i.exec(headerOf(exchange, "authorization")) ?? [];
  const [, password] = /^[^:]*:(.*)$/s.exec(Buffer.from(encoded, "base64").toString()) ?? [];
  if (password === exchange.options.password) return true;
  answer(exchange, 401, "who are you?\n", { "www-authenticate": 'Basic realm="tests"' });
  return false;
}
