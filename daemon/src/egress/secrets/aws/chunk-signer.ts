import { Transform, type TransformCallback } from "node:stream";
import { UnreadableContent } from "../secret-refusal.js";
import { emptyHash, sha256, type SigningKey } from "./signing-key.js";

/** bytes of a chunk, which has to be there as a whole before its signature can be; clients use 64 KiB to 1 MiB */
const maxChunkBytes = 4 * 1024 * 1024;
/** bytes of a line, and of all lines after the last chunk */
const maxLineBytes = 8 * 1024;

/**
 * A body of signed chunks, each signed anew; its length stays. Ends with `UnreadableContent` where it is no such body.
 * Source: Amazon S3, "Signature calculations: transferring payload in multiple chunks", and the same with trailing headers
 */
export class ChunkSigner extends Transform {
  readonly #key: SigningKey;
  readonly #trailing: boolean;
  #signature: string;
  #buffer: Buffer[] = [];
  #buffered = 0;
  #state: "size" | "data" | "trailer" | "end" = "size";
  /** of the chunk: its size as it was written, and in bytes */
  #size = { text: "", bytes: 0 };
  #trailers: string[] = [];

  /** @param seed signature of the head. @param trailing whether signed fields come after the last chunk */
  constructor(key: SigningKey, seed: string, trailing: boolean) {
    super();
    this.#key = key;
    this.#signature = seed;
    this.#trailing = trailing;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#buffer.push(chunk);
    this.#buffered += chunk.length;
    try {
      while (this.#step());
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  }

  override _flush(done: TransformCallback): void {
    done(this.#state === "end" && this.#buffered === 0 ? null : broken("that ends before its last chunk"));
  }

  /** False where more bytes are needed. */
  #step(): boolean {
    if (this.#state === "data") return this.#data();
    if (this.#state === "end") {
      if (this.#buffered > 0) throw broken("that goes on after its end");
      return false;
    }
    const line = this.#line();
    if (line === null) return false;
    if (this.#state === "size") this.#head(line);
    else this.#trailer(line);
    return true;
  }

  #head(line: string): void {
    const match = /^([0-9a-f]{1,8});chunk-signature=[0-9a-f]{64}$/i.exec(line);
    if (match === null) throw broken("without a size or a signature");
    const text = match[1] ?? "";
    this.#size = { text, bytes: Number.parseInt(text, 16) };
    if (this.#size.bytes > maxChunkBytes) throw broken(`of more than ${maxChunkBytes} bytes`);
    if (this.#size.bytes > 0) this.#state = "data";
    else {
      this.#emit(Buffer.alloc(0));
      this.#state = "trailer";
    }
  }

  #data(): boolean {
    const { bytes } = this.#size;
    if (this.#buffered < bytes + 2) return false;
    const data = this.#take(bytes + 2);
    if (data.toString("latin1", bytes) !== "\r\n") throw broken("of another size than it says");
    this.#emit(data.subarray(0, bytes));
    this.push("\r\n");
    this.#state = "size";
    return true;
  }

  #emit(data: Buffer): void {
    this.#signature = this.#key.sign("AWS4-HMAC-SHA256-PAYLOAD", [this.#signature, emptyHash, sha256(data)]);
    this.push(`${this.#size.text};chunk-signature=${this.#signature}\r\n`);
    if (data.length > 0) this.push(data);
  }

  #trailer(line: string): void {
    if (line === "") {
      this.push("\r\n");
      this.#state = "end";
      return;
    }
    const colon = line.indexOf(":");
    if (!this.#trailing || colon < 1) throw broken("with fields that are none, or should not be there");
    const name = line.slice(0, colon).trim().toLowerCase();
    if (name !== "x-amz-trailer-signature") {
      this.#trailers.push(`${name}:${line.slice(colon + 1).trim()}\n`);
      if (this.#trailers.join("").length > maxLineBytes) throw broken("with too many fields");
      this.push(Buffer.from(`${line}\r\n`, "latin1"));
      return;
    }
    const hash = sha256(this.#trailers.toSorted().join(""));
    const signature = this.#key.sign("AWS4-HMAC-SHA256-TRAILER", [this.#signature, hash]);
    this.push(`${line.slice(0, colon + 1)}${signature}\r\n`);
  }

  /** A line without its end; null where it has not come yet. */
  #line(): string | null {
    const bytes = Buffer.concat(this.#buffer);
    this.#buffer = [bytes];
    const end = bytes.subarray(0, maxLineBytes).indexOf("\r\n");
    if (end !== -1) return this.#take(end + 2).toString("latin1", 0, end);
    if (bytes.length >= maxLineBytes) throw broken("with a line that is too long");
    return null;
  }

  #take(length: number): Buffer {
    const bytes = Buffer.concat(this.#buffer);
    this.#buffer = [bytes.subarray(length)];
    this.#buffered = bytes.length - length;
    return bytes.subarray(0, length);
  }
}

function broken(how: string): UnreadableContent {
  return new UnreadableContent("client", `a signed chunk ${how}`);
}
