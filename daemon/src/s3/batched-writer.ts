const batchBytes = 1_048_576;

/** What a file can do that is written. */
interface Output {
  writev(chunks: readonly Uint8Array[], position: number): Promise<{ readonly bytesWritten: number }>;
}

/** Writes what comes in small chunks to a place in a file, many at a time: each write takes a turn of the event loop and of another thread. */
export class BatchedWriter {
  readonly #file: Output | null;
  #position: number;
  #chunks: Uint8Array[] = [];
  #bytes = 0;

  /** With no file everything is dropped. */
  constructor(file: Output | null, position: number) {
    this.#file = file;
    this.#position = position;
  }

  /** The chunk must not change until the next `flush` is done. Throws errors of the disk. */
  async write(chunk: Uint8Array): Promise<void> {
    if (this.#file === null || chunk.byteLength === 0) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.byteLength;
    if (this.#bytes >= batchBytes) await this.flush();
  }

  async flush(): Promise<void> {
    if (this.#file === null) return;
    let chunks = this.#chunks;
    this.#chunks = [];
    this.#bytes = 0;
    while (chunks.length > 0) {
      const { bytesWritten } = await this.#file.writev(chunks, this.#position);
      this.#position += bytesWritten;
      chunks = rest(chunks, bytesWritten);
    }
  }
}

/** What is left of chunks whose first `bytes` are done with. */
function rest(chunks: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let left = bytes;
  return chunks.flatMap((chunk) => {
    const done = Math.min(left, chunk.byteLength);
    left -= done;
    return done === chunk.byteLength ? [] : [chunk.subarray(done)];
  });
}
