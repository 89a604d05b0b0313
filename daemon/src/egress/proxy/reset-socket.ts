import { Socket } from "node:net";
import type { Duplex } from "node:stream";

/** TCP connections by the TLS connections on them */
const carriers = new WeakMap<Duplex, Socket>();

/** Says what TLS runs on, since that alone can be reset. */
export function carriedBy(tls: Duplex, socket: Socket): void {
  carriers.set(tls, socket);
}

/** Closes a connection at once, and so that the other end takes it for a failure, not for the end, unless it was told the end already. */
export function resetSocket(stream: Duplex): void {
  const socket = carriers.get(stream) ?? stream;
  if (socket.destroyed) return;
  // one that is not connected has nobody to tell; libuv refuses to reset one while it sends its end, and Node would leak it
  const plain = socket instanceof Socket && !socket.connecting && (!socket.writableEnded || socket.writableFinished);
  if (plain) socket.resetAndDestroy();
  else socket.destroy();
}
