import { createServer, type Server, type TLSSocket } from "node:tls";
import { serverContext } from "./secret-bed.js";

/** Source: RFC 9113, section 6 */
export const type = { data: 0, headers: 1, reset: 3, settings: 4, push: 5, ping: 6, goaway: 7, window: 8, more: 9 };
export const flag = { end: 1, endHeaders: 4, ack: 1 };

/** The field block of `:status: 200`, and of `content-length: 10` and `:status: 100` as literals. Source: RFC 7541 */
export const ok = Buffer.from([0x88]);
export const contentLength10 = Buffer.concat([Buffer.from([0x0f, 0x0d, 2]), Buffer.from("10")]);
export const informational = Buffer.concat([Buffer.from([0x08, 3]), Buffer.from("103")]);

/** A field that goes into the dynamic table, where it is number 62 then. Its parts are of up to 16,000 bytes. */
export function indexedField(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0x40]), text(name), text(value)]);
}

/** A field that goes into no table. */
export function plainField(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0x00]), text(name), text(value)]);
}

/** A string without Huffman's code; its length is a number with a prefix of 7 bits. */
function text(value: string): Buffer {
  const bytes = Buffer.from(value, "latin1");
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const rest = bytes.length - 127;
  return Buffer.concat([Buffer.from([127, (rest & 0x7f) | 0x80, rest >> 7]), bytes]);
}

export function frame(kind: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(kind, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

export interface RawHttp2 {
  readonly server: Server;
  /** bytes that its connections have taken */
  sent(): number;
  /** connections that there are now */
  open(): number;
}

/**
 * A TLS server that speaks HTTP/2 by hand: settings at first, and for each request what `answer` gives for the number of its stream. A function of
 * what it gives is called for bytes again and again, as long as the connection takes them, up to 64 MiB.
 */
export function rawHttp2(name: string, answer: (stream: number) => readonly (Buffer | (() => Buffer))[]): RawHttp2 {
  let sent = 0;
  let open = 0;
  const server = createServer(
    { SNICallback: (_, done) => done(null, serverContext(name)), ALPNProtocols: ["h2"] },
    (socket) => {
      open += 1;
      socket.once("close", () => (open -= 1));
      socket.on("error", () => undefined);
      let received: Buffer = Buffer.alloc(0);
      let skip = 24; // the client's preface
      socket.write(frame(type.settings, 0, 0));
      socket.on("data", (chunk: Buffer) => {
        received = Buffer.concat([received, chunk]);
        if (received.length < skip) return;
        received = received.subarray(skip);
        skip = 0;
        while (received.length >= 9 && received.length >= 9 + received.readUIntBE(0, 3)) {
          const length = received.readUIntBE(0, 3);
          if (received[3] === type.headers) send(socket, answer(received.readUInt32BE(5) & 0x7fffffff));
          received = received.subarray(9 + length);
        }
      });
    },
  );
  const send = (socket: TLSSocket, parts: readonly (Buffer | (() => Buffer))[]): void => {
    for (const part of parts) {
      if (Buffer.isBuffer(part)) {
        socket.write(part);
        sent += part.length;
        continue;
      }
      const go = (): void => {
        while (!socket.destroyed && sent < 64 * 1_048_576) {
          const bytes = part();
          sent += bytes.length;
          if (!socket.write(bytes)) {
            socket.once("drain", go);
            return;
          }
        }
      };
      go();
      return;
    }
  };
  server.on("tlsClientError", () => undefined);
  return { server, sent: () => sent, open: () => open };
}
