import { Socket } from "node:net";
import type { Duplex, Readable, Writable } from "node:stream";
import { resetSocket } from "./reset-socket.js";
import { splice } from "./splice.js";

const corked = new WeakSet<Writable>();

/** Has what is written in this turn of the event loop leave as one: each write is a record of TLS and a call of the kernel. */
export function writeTogether(to: Writable): void {
  if (corked.has(to)) return;
  corked.add(to);
  to.cork();
  setImmediate(() => {
    corked.delete(to);
    if (!to.writableEnded) to.uncork(); // its end has done that
  });
}

interface BodyEnds {
  /** All was written but the end. */
  readonly ended: () => void;
  /** What comes out is not the whole. */
  readonly failed: (error: Error) => void;
}

/** Passes a body on, through `through` where it is not null, as fast as it is taken. */
export function pipeBody(from: Readable, through: Duplex | null, to: Writable, { ended, failed }: BodyEnds): void {
  from.once("error", failed);
  let last = from;
  if (through !== null) {
    through.once("error", failed);
    last = from.pipe(through);
  }
  last.on("data", () => writeTogether(to));
  last.pipe(to, { end: false });
  last.once("end", ended);
}

interface JoinEnds {
  /** What one of them sent was not passed on. */
  readonly failed: (error: Error) => void;
  /** Both are closed, or about to be. */
  readonly closed: () => void;
}

/** Joins two connections, through what looks at each direction where it is not null. */
export function joinStreams(
  client: Duplex,
  server: Duplex,
  through: { readonly toServer: Duplex; readonly toClient: Duplex } | null,
  { failed, closed }: JoinEnds,
): void {
  if (server instanceof Socket) {
    server.setTimeout(0);
    server.allowHalfOpen = true;
  }
  client.once("close", closed);
  if (through === null) {
    server.pipe(client, { end: false });
    splice(client, server);
    return;
  }
  const { toServer, toClient } = through;
  client.pipe(toServer).pipe(server);
  server.pipe(toClient).pipe(client);
  const cut = (): void => {
    toServer.destroy();
    toClient.destroy();
    for (const each of [client, server]) resetSocket(each);
  };
  for (const each of [toServer, toClient]) {
    each.once("error", (error: Error) => {
      failed(error);
      cut();
    });
  }
  for (const each of [client, server]) {
    each.on("error", () => undefined); // "close" follows
    each.once("close", () => {
      if (each.errored !== null || !each.readableEnded || !each.writableFinished) cut();
    });
  }
}
