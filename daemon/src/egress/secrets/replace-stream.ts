import { Transform, type TransformCallback } from "node:stream";
import type { Replacer } from "./replacer.js";

/** Bytes through a replacer. Ends with what a pattern throws. */
export class ReplaceStream extends Transform {
  readonly #replacer: Replacer;

  constructor(replacer: Replacer) {
    super();
    this.#replacer = replacer;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#pass(() => this.#replacer.push(chunk), done);
  }

  override _flush(done: TransformCallback): void {
    this.#pass(() => this.#replacer.end(), done);
  }

  #pass(replace: () => Buffer[], done: TransformCallback): void {
    let pieces: Buffer[];
    try {
      pieces = replace();
    } catch (error) {
      done(error as Error);
      return;
    }
    for (const piece of pieces) this.push(piece);
    done();
  }
}
