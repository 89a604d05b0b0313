import type { Duplex } from "node:stream";
import { constants, deflateRawSync } from "node:zlib";
import type { Endpoint } from "./wire.js";

const mebi = 1_048_576;
/** unpacked, of a quarter of one */
const bombMib = 256;
const zerosPacked = deflateRawSync(Buffer.alloc(mebi), { level: 9, finishFlush: constants.Z_FULL_FLUSH });
const gzipHead = Buffer.from("1f8b0800000000000003", "hex");
const filler = `${"x".repeat(1_000)}\r\n`;
const head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";

/** Writes what is no proper answer of HTTP/1.1 onto the connection. */
const raw =
  (misbehave: (socket: Duplex, authorization: string) => void): Endpoint =>
  ({ request }) => {
    const socket = request.socket;
    socket.on("error", () => undefined); // who is attacked hangs up
    misbehave(socket, request.headers.authorization ?? "");
  };

/** Writes again and again, as fast as it is taken. */
function endlessly(socket: Duplex, next: () => string): void {
  const go = (): void => {
    while (!socket.destroyed && socket.write(next()));
    if (!socket.destroyed) socket.once("drain", go);
  };
  go();
}

/** What a server does that wants to harm who asks it, over HTTP/1.1. Those that say something say what the request was authorized with. */
export const hostileEndpoints: Readonly<Record<string, Endpoint>> = {
  "/endless-headers": raw((socket) => {
    socket.write(head);
    let count = 0;
    endlessly(socket, () => `X-Field-${count++}: ${filler}`);
  }),
  "/endless-line": raw((socket) => {
    socket.write(`${head}X-Field: `);
    endlessly(socket, () => filler.trim());
  }),
  "/endless-body": raw((socket) => {
    socket.write(`${head}\r\n`);
    endlessly(socket, () => filler);
  }),
  "/endless-chunk-line": raw((socket) => {
    socket.write(`${head}Transfer-Encoding: chunked\r\n\r\n5;`);
    endlessly(socket, () => filler.trim());
  }),
  "/too-short": raw((socket, said) => socket.end(`${head}Content-Length: 100000\r\n\r\n${said}`)),
  "/too-long": raw((socket, said) => socket.end(`${head}Content-Length: 5\r\n\r\nshort and ${said}`)),
  "/two-lengths": raw((socket, said) =>
    socket.end(`${head}Content-Length: 5\r\nContent-Length: 50\r\n\r\nshort and ${said}`),
  ),
  "/length-and-chunks": raw((socket, said) =>
    socket.end(`${head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n\r\nand ${said}`),
  ),
  "/bad-chunk": raw((socket, said) =>
    socket.end(`${head}Transfer-Encoding: chunked\r\n\r\nzz\r\n${said}\r\n0\r\n\r\n`),
  ),
  "/split-field": raw((socket, said) => socket.end(`${head}X-Echo: a\r\n ${said}\r\nContent-Length: 0\r\n\r\n`)),
  "/no-http": raw((socket, said) => socket.end(`I am no web server, but you said ${said}\r\n\r\n`)),
  "/reset": raw((socket, said) => {
    socket.write(`${head}Content-Length: 100000\r\n\r\nbegun ${said}`);
    setTimeout(() => socket.destroy(), 50);
  }),
  "/second-answer": raw((socket, said) =>
    socket.write(
      `${head}Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 7\r\nX-Echo: ${said}\r\n\r\nunasked`,
    ),
  ),
  "/bomb": ({ response }) => {
    response.writeHead(200, { "content-type": "text/plain", "content-encoding": "gzip" });
    response.on("error", () => undefined);
    response.write(gzipHead);
    let left = bombMib;
    const go = (): void => {
      while (left > 0 && !response.destroyed) {
        left--;
        if (!response.write(zerosPacked)) break;
      }
      if (left > 0 && !response.destroyed) response.once("drain", go);
      else response.end();
    };
    go();
  },
  "/silence": () => undefined,
};
