import { Socket } from "node:net";
import { Stream, type Duplex, type Readable, type Writable } from "node:stream";
import type { Pieces } from "../secrets/substitution.js";
import { resetSocket } from "./reset-socket.js";
import { splice } from "./splice.js";

/**
 * Bytes that wait in a TLS connection, and in a message on it, before who sends them is held back. TLS comes in records of up to 16 KiB, which
 * is Node's default as well: then each record is waited for. With this, a large body costs a third less.
 */
export const waitingBytes = 128 * 1024;

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
  /** told of each piece that is written, in bytes */
  readonly passed?: (bytes: number) => void;
  /** All was written but the end. */
  readonly ended: () => void;
  /** What comes out is not the whole. */
  readonly failed: (error: Error) => void;
}

/**
 * Passes a body on, through `through` where it is not null, as fast as it is taken. Its own errors are the caller's to hear. Not by `pipe`, whose listeners cost more than a small
 * body does.
 */
export function pipeBody(
  from: Readable,
  through: Duplex | Pieces | null,
  to: Writable,
  { passed, ended, failed }: BodyEnds,
): void {
  let last = from;
  let pieces: Pieces | null = null;
  if (through instanceof Stream) {
    through.once("error", failed);
    last = from.pipe(through);
  } else pieces = through;
  const write = (piece: Buffer): boolean => {
    passed?.(piece.length);
    return to.write(piece);
  };
  const resume = (): void => void last.resume();
  last.on("data", (chunk: Buffer) => {
    if (to.destroyed || to.writableEnded) return; // it is read to its end for the sake of who sends it
    writeTogether(to);
    let more = true;
    if (pieces === null) more = write(chunk);
    else for (const piece of pieces.push(chunk)) more = write(piece);
    if (more) return;
    last.pause();
    to.once("drain", resume);
  });
  to.once("close", () => {
    if (!last.readableEnded) last.pause();
  });
  last.once("end", () => {
    if (pieces !== null && !to.destroyed) for (const piece of pieces.end()) write(piece);
    ended();
  });
  last.resume(); // it may have been read before, for its beginning
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
