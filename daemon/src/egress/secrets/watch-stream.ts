import { Transform, pipeline, type TransformCallback } from "node:stream";

/**
 * Passes bytes as they are, each piece once other streams have looked at all that is in it. Those decode and search; what they make is
 * dropped, and their error ends this one.
 */
export class WatchStream extends Transform {
  readonly #streams: readonly Transform[];
  readonly #first: Transform;
  readonly #last: Transform;

  /** @param explain what to end with in place of an error of one of the streams */
  constructor(streams: readonly Transform[], explain: (error: Error) => Error) {
    super();
    const [first, second] = [streams[0], streams.at(-1)];
    if (first === undefined || second === undefined || first === second)
      throw new RangeError("less than two streams to look with");
    this.#streams = streams;
    this.#first = first;
    this.#last = second;
    pipeline(streams, (error) => {
      if (error && !this.destroyed) this.destroy(explain(error));
    });
    this.#last.resume();
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const whenSeen = (): void => {
      if (this.destroyed) return;
      if (this.#streams.every((stream) => stream.readableLength === 0 && stream.writableLength === 0))
        done(null, chunk);
      else setImmediate(whenSeen);
    };
    // its own error comes by way of the pipeline
    this.#first.write(chunk, (error) => {
      if (error === null || error === undefined) setImmediate(whenSeen);
    });
  }

  override _flush(done: TransformCallback): void {
    if (this.#last.readableEnded) done();
    else this.#last.once("end", () => done());
    this.#first.end();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    for (const stream of this.#streams) stream.destroy();
    done(error);
  }
}
