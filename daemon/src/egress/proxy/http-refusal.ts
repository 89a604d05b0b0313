import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { hasBody } from "./http-target.js";

const reasons: Readonly<Record<number, string>> = {
  400: "Bad Request",
  403: "Forbidden",
  405: "Method Not Allowed",
  408: "Request Timeout",
  502: "Bad Gateway",
  504: "Gateway Timeout",
  431: "Request Header Fields Too Large",
};

/** Answers in place of the server. The connection is kept where it is certain that the next request begins right after this one. */
export function sayRefused(
  request: IncomingMessage,
  response: ServerResponse,
  { status, text, lingerMs }: { status: number; text: string; lingerMs: number },
): void {
  if (response.headersSent) return;
  const body = Buffer.from(`squash: ${text}\n`);
  const keep = status !== 400 && !hasBody(request);
  response.sendDate = false;
  response.writeHead(status, [
    ...["Content-Type", "text/plain; charset=utf-8", "Content-Length", String(body.length)],
    ...(keep ? [] : ["Connection", "close"]),
  ]);
  if (keep || request.complete) {
    response.end(body);
    return;
  }
  // the whole answer, but no end: what the client still sends is read for a while, since a reset would take the answer with it
  response.write(body);
  request.unpipe();
  request.resume();
  const end = (): void => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(end, lingerMs);
  request.once("end", end);
  response.once("close", () => clearTimeout(timer));
}

/** The same where there is no request that could be answered; then closes. */
export function sayRefusedRaw(client: Duplex, status: number, text: string, lingerMs: number): void {
  const body = Buffer.from(`squash: ${text}\n`);
  const head =
    `HTTP/1.1 ${status} ${reasons[status] ?? ""}\r\nContent-Type: text/plain; charset=utf-8\r\n` +
    `Content-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
  client.end(Buffer.concat([Buffer.from(head), body]));
  client.resume();
  const timer = setTimeout(() => client.destroy(), lingerMs);
  client.once("close", () => clearTimeout(timer));
}
