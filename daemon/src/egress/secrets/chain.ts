import { Duplex, pipeline, type Transform } from "node:stream";

/** Streams one after the other, as one: what is written goes into the first, what is read comes from the last. An error of one ends all. */
export class Chain extends Duplex {
  readonly #first: Transform;
  readonly #last: Transform;
  readonly #explain: (error: Error) => Error;

  /** @param explain what to end with in place of an error of one of the streams */
  constructor(streams: readonly Transform[], explain: (error: Error) => Error) {
    super();
    const [first, second] = [streams[0], streams.at(-1)];
    if (first === undefined || second === undefined || first === second)
      throw new RangeError("a chain of less than two streams");
    this.#first = first;
    this.#last = second;
    this.#explain = explain;
    pipeline(streams, (error) => this.#ended(error ?? null));
    this.#last.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) this.#last.pause();
    });
    this.#last.once("end", () => this.push(null));
  }

  override _read(): void {
    this.#last.resume();
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#first.write(chunk, encoding, (error) => {
      // its own error comes by way of the pipeline
      if (error === null || error === undefined) done();
    });
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#first.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#first.destroy();
    this.#last.destroy();
    done(error);
  }

  #ended(error: Error | null): void {
    if (error !== null && !this.destroyed) this.destroy(this.#explain(error));
  }
}
