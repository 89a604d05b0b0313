import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { LargeBuffers } from "./large-buffers.js";
import { resetSocket } from "./reset-socket.js";
import { tcpKeepAlive } from "./timings.js";

const smallSize = 64 * 1024;

/**
 * Starts a connection whose bytes go straight to `client`. They are read into one buffer again and again, without an allocation for each
 * read, and nothing is read while the last of it is not written. A large buffer, while there is one, halves the cost of a fast transfer.
 */
export function connectInto(client: Socket, to: { host: string; port: number }, large: LargeBuffers): Socket {
  const small = Buffer.allocUnsafeSlow(smallSize);
  let buffer: Buffer = small;
  let waiting = false;

  const written = (): void => {
    if (!waiting || client.writableLength > 0) return;
    waiting = false;
    server.resume();
  };
  /** Called only while nobody uses the buffer. */
  const resize = (size: number): void => {
    if (buffer === small && size === smallSize) {
      buffer = large.take() ?? small;
    } else if (buffer !== small && size < smallSize / 2) {
      large.give(buffer);
      buffer = small;
    }
  };
  const server = connect({
    ...to,
    ...tcpKeepAlive,
    allowHalfOpen: true,
    noDelay: true,
    onread: {
      buffer: () => buffer,
      callback: (size, bytes) => {
        client.write(bytes.subarray(0, size), written);
        waiting = client.writableLength > 0;
        if (!waiting) resize(size);
        return !waiting;
      },
    },
  });
  server.once("close", () => {
    if (buffer === small) return;
    if (waiting) large.giveUp();
    else large.give(buffer);
    buffer = small;
  });
  return server;
}

/**
 * Passes on what comes from `client`, and the ends and failures of both; an end leaves the other direction open. What comes from `server`
 * is passed on by `connectInto`, or by a pipe of the caller.
 */
export function splice(client: Duplex, server: Duplex): void {
  client.pipe(server);
  server.once("end", () => client.end());
  resetAfter(client, server);
  resetAfter(server, client);
}

function resetAfter(one: Duplex, other: Duplex): void {
  const follow = (): void => {
    // after an orderly end the other one may still have bytes to send
    if (one.errored !== null || !one.readableEnded || !one.writableFinished) resetSocket(other);
  };
  one.once("error", () => undefined); // "close" follows
  if (one.destroyed) follow();
  else one.once("close", follow);
}
