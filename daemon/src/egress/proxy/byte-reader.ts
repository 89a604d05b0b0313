/** Reads big-endian fields, as TLS writes them. Throws `RangeError` where one does not fit. */
export class ByteReader {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#offset;
  }

  /** A number of 1 to 3 bytes. */
  uint(size: number): number {
    return this.take(size).readUIntBE(0, size);
  }

  take(size: number): Buffer {
    if (size > this.left) throw new RangeError("a field is longer than what holds it");
    this.#offset += size;
    return this.#bytes.subarray(this.#offset - size, this.#offset);
  }

  /** A vector, whose length takes `size` bytes and lies within the bounds. */
  vector(size: number, least: number, most: number): ByteReader {
    const length = this.uint(size);
    if (length < least || length > most) throw new RangeError("a length is out of bounds");
    return new ByteReader(this.take(length));
  }

  rest(): Buffer {
    return this.take(this.left);
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.left > 0) throw new RangeError("something is longer than its fields");
  }
}

/** Bytes that arrive in pieces, in one buffer that doubles, so that a byte at a time costs no more than all at once. */
export class ByteCollector {
  #buffer = Buffer.allocUnsafe(2048);
  #length = 0;

  /** A view, good until the next `add`. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  add(chunk: Buffer): void {
    const needed = this.#length + chunk.length;
    if (needed > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, 2 * this.#buffer.length));
      this.bytes.copy(larger);
      this.#buffer = larger;
    }
    chunk.copy(this.#buffer, this.#length);
    this.#length = needed;
  }
}
