/** Frames on both links; the layout is described in native/src/frame.h, whose tests share their vectors with the tests here. */

export const headerSize = 12;
export const maxPayload = 320 * 1024;

export interface Frame {
  readonly id: number;
  readonly type: number;
  /** an errno; 0 = success */
  readonly status: number;
  readonly payload: Buffer;
}

/** Collects fields of a payload. Strings must not hold NUL, which no path, name or argument can. */
export class FieldWriter {
  readonly #parts: Buffer[] = [];

  u32(value: number): this {
    const bytes = Buffer.allocUnsafe(4);
    bytes.writeUInt32LE(value);
    this.#parts.push(bytes);
    return this;
  }

  u64(value: bigint | number): this {
    const bytes = Buffer.allocUnsafe(8);
    bytes.writeBigUInt64LE(BigInt(value));
    this.#parts.push(bytes);
    return this;
  }

  string(value: string): this {
    const bytes = Buffer.from(value);
    this.u32(bytes.length);
    this.#parts.push(bytes);
    return this;
  }

  /** With its size in front, as a string. */
  bytes(value: Buffer): this {
    this.u32(value.length);
    this.#parts.push(value);
    return this;
  }

  strings(values: readonly string[]): this {
    this.u32(values.length);
    for (const value of values) this.string(value);
    return this;
  }

  frame(type: number, id = 0): Buffer {
    return encodeFrame(type, Buffer.concat(this.#parts), id);
  }
}

export function encodeFrame(type: number, payload: Buffer, id = 0): Buffer {
  if (payload.length > maxPayload)
    throw new RangeError(`a frame of ${payload.length} bytes is larger than ${maxPayload}`);
  const frame = Buffer.allocUnsafe(headerSize + payload.length);
  frame.writeUInt32LE(payload.length, 0);
  frame.writeUInt32LE(id, 4);
  frame.writeUInt16LE(type, 8);
  frame.writeUInt16LE(0, 10);
  payload.copy(frame, headerSize);
  return frame;
}

/** Reads fields from a payload. Throws `RangeError` where a field does not fit. */
export class FieldReader {
  readonly #payload: Buffer;
  #offset = 0;

  constructor(payload: Buffer) {
    this.#payload = payload;
  }

  u32(): number {
    const value = this.#payload.readUInt32LE(this.#offset);
    this.#offset += 4;
    return value;
  }

  u64(): bigint {
    const value = this.#payload.readBigUInt64LE(this.#offset);
    this.#offset += 8;
    return value;
  }

  string(): string {
    const size = this.u32();
    if (size > this.#payload.length - this.#offset) throw new RangeError("a string is longer than its payload");
    const text = this.#payload.toString("utf8", this.#offset, this.#offset + size);
    this.#offset += size;
    return text;
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.#offset !== this.#payload.length) throw new RangeError("a payload is longer than its fields");
  }
}

/** Cuts a stream of bytes into frames. Throws `RangeError` on a frame that is too large; nothing may be read after that. */
export class FrameDecoder {
  #rest: Buffer = Buffer.alloc(0);

  *push(chunk: Buffer): Generator<Frame> {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = Buffer.alloc(0);
    while (bytes.length >= headerSize) {
      const size = bytes.readUInt32LE(0);
      if (size > maxPayload) throw new RangeError(`a frame of ${size} bytes is larger than ${maxPayload}`);
      if (bytes.length < headerSize + size) break;
      const frame = {
        id: bytes.readUInt32LE(4),
        type: bytes.readUInt16LE(8),
        status: bytes.readUInt16LE(10),
        payload: bytes.subarray(headerSize, headerSize + size),
      };
      bytes = bytes.subarray(headerSize + size);
      yield frame;
    }
    this.#rest = bytes;
  }
}
