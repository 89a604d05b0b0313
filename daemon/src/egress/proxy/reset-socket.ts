import type { Socket } from "node:net";

/** Closes a socket at once, and so that the other end takes it for a failure, not for the end, unless it was told the end already. */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  // one that is not connected has nobody to tell; libuv refuses to reset one while it sends its end, and Node would leak it
  if (socket.connecting || (socket.writableEnded && !socket.writableFinished)) socket.destroy();
  else socket.resetAndDestroy();
}
