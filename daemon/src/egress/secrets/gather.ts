import { Readable, type Duplex } from "node:stream";

/**
 * Leads a client's body into a stream and gives that back. An error or an early end of the body ends the stream; the stream's own end
 * leaves the body open, so that the client can still be answered.
 */
export function feed<T extends Duplex>(body: Readable, into: T): T {
  const broken = (error?: Error): void => {
    if (!body.readableEnded && !into.destroyed) into.destroy(error ?? new Error("The body ended before its time"));
  };
  body.once("error", broken);
  body.once("close", broken);
  into.on("error", () => undefined); // it may come before who takes the stream listens; `errored` has it
  into.once("close", () => {
    body.unpipe(into);
    body.off("close", broken);
  });
  body.pipe(into);
  return into;
}

export interface Gathered {
  /** what came, as a whole or up to the limit */
  readonly bytes: Buffer;
  /** whether that is all */
  readonly whole: boolean;
}

/** Reads a stream to its end or until it has given more than `limit` bytes; what was read of a longer one is put back. Rejects with its error. */
export function gather(stream: Readable, limit: number): Promise<Gathered> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const settle = (whole: boolean): void => {
      stream.off("data", take);
      stream.off("end", end);
      stream.off("error", reject);
      stream.off("close", close);
      const bytes = Buffer.concat(chunks);
      if (!whole) {
        stream.pause();
        stream.unshift(bytes);
      }
      resolve({ bytes, whole });
    };
    const take = (chunk: Buffer): void => {
      chunks.push(chunk);
      length += chunk.length;
      if (length > limit) settle(false);
    };
    const end = (): void => settle(true);
    const close = (): void => reject(new Error("The body ended before its time"));
    stream.on("data", take);
    stream.once("end", end);
    stream.once("error", reject);
    stream.once("close", close);
  });
}

/** Bytes as a stream. */
export function streamOf(bytes: Buffer): Readable {
  const stream = new Readable({ read: () => undefined });
  if (bytes.length > 0) stream.push(bytes);
  stream.push(null);
  return stream;
}
