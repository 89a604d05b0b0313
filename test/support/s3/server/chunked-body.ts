import { createHash } from "node:crypto";
import { S3Error } from "./s3-error.js";
import type { Verified } from "./signature.js";

const maxLineBytes = 8_192;
const emptyHash = createHash("sha256").digest("hex");

/**
 * A body in chunks of AWS's own ("aws-chunked"), decoded while it arrives; where the chunks are signed, each signature goes on from the one
 * before. What it has given is only to be trusted once it has ended. Throws `S3Error`.
 */
export class ChunkedBody {
  readonly #reader: ByteReader;
  readonly #verified: Verified;
  readonly #isSigned: boolean;
  #previous: string;
  /** what came after the content, by lower-case names; complete once the content has ended */
  readonly trailers = new Map<string, string>();

  constructor(source: AsyncIterable<Buffer>, verified: Verified) {
    this.#reader = new ByteReader(source);
    this.#verified = verified;
    this.#isSigned = verified.payload.startsWith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    this.#previous = verified.signature;
  }

  async *content(): AsyncGenerator<Buffer> {
    for (;;) {
      const [, sizeText, signature = ""] =
        /^([0-9a-f]{1,12})(?:;chunk-signature=([0-9a-f]{64}))?$/i.exec(await this.#reader.line()) ?? [];
      if (sizeText === undefined) throw new S3Error("InvalidRequest", "a chunk has no size");
      const size = parseInt(sizeText, 16);
      const hash = createHash("sha256");
      for await (const piece of this.#reader.exactly(size)) {
        if (this.#isSigned) hash.update(piece);
        yield piece;
      }
      if (this.#isSigned) await this.#expect("PAYLOAD", [emptyHash, hash.digest("hex")], signature);
      if (size === 0) break;
      if ((await this.#reader.line()) !== "") throw new S3Error("InvalidRequest", "a chunk is longer than its size");
    }
    await this.#readTrailers();
  }

  async #readTrailers(): Promise<void> {
    const lines: string[] = [];
    for (let line = await this.#reader.line(); line !== ""; line = await this.#reader.line()) lines.push(line);
    await this.#reader.end();
    for (const line of lines) {
      const [, name = "", value = ""] = /^([^:]+):(.*)$/.exec(line) ?? [];
      this.trailers.set(name.toLowerCase(), value.trim());
    }
    if (!this.#isSigned || !this.#verified.payload.endsWith("-TRAILER")) return;
    const signed = lines.filter((line) => !line.startsWith("x-amz-trailer-signature:"));
    const hash = createHash("sha256").update(signed.map((line) => `${line}\n`).join(""));
    await this.#expect("TRAILER", [hash.digest("hex")], this.trailers.get("x-amz-trailer-signature") ?? "");
  }

  async #expect(what: "PAYLOAD" | "TRAILER", hashes: readonly string[], signature: string): Promise<void> {
    this.#previous = await this.#verified.signPart(what, this.#previous, hashes);
    if (this.#previous !== signature)
      throw new S3Error("SignatureDoesNotMatch", `the signature of a chunk (${what}) is not ours`);
  }
}

/** Lines and byte counts out of pieces of any size. */
class ByteReader {
  readonly #source: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  async #more(): Promise<Buffer> {
    const next = await this.#source.next();
    if (next.done === true) throw new S3Error("IncompleteBody", "You did not provide the number of bytes you said");
    return next.value;
  }

  /** Up to the end of the line, which is left out. */
  async line(): Promise<string> {
    for (;;) {
      const end = this.#rest.indexOf("\r\n");
      if (end > maxLineBytes || (end < 0 && this.#rest.length > maxLineBytes))
        throw new S3Error("InvalidRequest", "a line between chunks is too long");
      if (end >= 0) {
        const text = this.#rest.toString("latin1", 0, end);
        this.#rest = this.#rest.subarray(end + 2);
        return text;
      }
      this.#rest = Buffer.concat([this.#rest, await this.#more()]);
    }
  }

  async *exactly(count: number): AsyncGenerator<Buffer> {
    for (let left = count; left > 0;) {
      if (this.#rest.length === 0) this.#rest = await this.#more();
      const piece = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
  }

  /** Nothing may be left. */
  async end(): Promise<void> {
    const isEmpty = this.#rest.length === 0 && (await this.#source.next()).done === true;
    if (!isEmpty) throw new S3Error("InvalidRequest", "there is more after the last chunk");
  }
}
