import { createWriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { checksumNames, Sums, type ChecksumName, type SumName } from "./checksums.js";
import { ChunkedBody } from "./chunked-body.js";
import { S3Error } from "./s3-error.js";
import { headerOf, type S3Request } from "./s3-request.js";
import type { Verified } from "./signature.js";

/** A checksum that a client has sent along, in Base64. */
export interface Checksum {
  readonly name: ChecksumName;
  readonly value: string;
}

export interface Received {
  readonly size: number;
  readonly checksum: Checksum | null;
  /** in hexadecimal, where it was asked for */
  readonly md5: string | null;
}

/** A request whose body is yet to be read. `counted` hears of each piece. */
export interface Incoming {
  readonly request: S3Request;
  readonly verified: Verified;
  readonly counted: (bytes: number) => void;
}

/** how bodies may be signed in chunks */
const streaming = [
  "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
  "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
  "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
];
const maxDocumentBytes = 2_000_000;
const maxObjectBytes = 5 * 1024 ** 3;

/**
 * Writes the body to a new file, and holds it against everything that was sent along about it: its length, its hash or the signatures of its
 * chunks, and its checksums. Throws `S3Error`, or what the connection fails with; the file is gone then.
 */
export async function receiveFile(incoming: Incoming, file: string, wantsMd5: boolean): Promise<Received> {
  try {
    const body = new CheckedBody(incoming, wantsMd5);
    await pipeline(body.content(), createWriteStream(file, { flags: "wx", highWaterMark: 4_194_304 }));
    return body.received();
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  }
}

/** A small body, which is checked likewise. */
export async function receiveText(incoming: Incoming): Promise<string> {
  const body = new CheckedBody(incoming, false);
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of body.content()) {
    size += piece.length;
    if (size > maxDocumentBytes) throw new S3Error("MalformedXML", "the document is too large");
    pieces.push(piece);
  }
  body.received();
  return Buffer.concat(pieces).toString("utf8");
}

class CheckedBody {
  readonly #incoming: Incoming;
  readonly #chunked: ChunkedBody | null;
  readonly #sums: Sums;
  readonly #announced: readonly ChecksumName[];
  readonly #wantsMd5: boolean;
  readonly #wanted: number;
  #size = 0;

  constructor(incoming: Incoming, wantsMd5: boolean) {
    const { request, verified } = incoming;
    this.#incoming = incoming;
    this.#wantsMd5 = wantsMd5;
    this.#chunked = streaming.includes(verified.payload) ? new ChunkedBody(this.#raw(), verified) : null;
    this.#wanted = lengthOf(request, this.#chunked !== null);
    if (this.#wanted > maxObjectBytes) throw new S3Error("EntityTooLarge", "Your proposed upload is too large");
    this.#announced = announcedChecksums(request);
    const names = new Set<SumName>(this.#announced);
    if (wantsMd5 || headerOf(request, "content-md5") !== "") names.add("md5");
    if (/^[0-9a-f]{64}$/.test(verified.payload)) names.add("sha256");
    else if (this.#chunked === null && verified.payload !== "UNSIGNED-PAYLOAD")
      throw new S3Error("InvalidRequest", `"${verified.payload}" is no x-amz-content-sha256`);
    this.#sums = new Sums(names);
  }

  async *#raw(): AsyncGenerator<Buffer> {
    // a body that is refused half-way still has to be answered
    const pieces = this.#incoming.request.http.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
    for await (const piece of pieces) {
      this.#incoming.counted(piece.length);
      yield piece;
    }
  }

  async *content(): AsyncGenerator<Buffer> {
    for await (const piece of this.#chunked?.content() ?? this.#raw()) {
      this.#size += piece.length;
      this.#sums.update(piece);
      yield piece;
    }
  }

  /** To be called once the content has ended. Throws where anything is not as it was said. */
  received(): Received {
    const { request, verified } = this.#incoming;
    if (this.#size !== this.#wanted)
      throw new S3Error("IncompleteBody", `${this.#wanted} bytes were announced, and ${this.#size} came`);
    if (/^[0-9a-f]{64}$/.test(verified.payload) && this.#sums.of("sha256").toString("hex") !== verified.payload)
      throw new S3Error("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match.");
    const md5 = headerOf(request, "content-md5");
    if (md5 !== "" && this.#sums.of("md5").toString("base64") !== md5)
      throw new S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.");
    const checksums = this.#announced.map((name) => this.#checked(name));
    return {
      size: this.#size,
      checksum: checksums[0] ?? null,
      md5: this.#wantsMd5 ? this.#sums.of("md5").toString("hex") : null,
    };
  }

  #checked(name: ChecksumName): Checksum {
    const header = `x-amz-checksum-${name}`;
    const value = headerOf(this.#incoming.request, header) || (this.#chunked?.trailers.get(header) ?? "");
    if (this.#sums.of(name).toString("base64") !== value)
      throw new S3Error("BadDigest", `The ${name.toUpperCase()} you specified did not match the calculated checksum.`);
    return { name, value };
  }
}

function lengthOf(request: S3Request, isChunked: boolean): number {
  const text = headerOf(request, isChunked ? "x-amz-decoded-content-length" : "content-length");
  if (!/^\d+$/.test(text)) throw new S3Error("MissingContentLength", "You must provide the length of the content.");
  return Number(text);
}

function announcedChecksums(request: S3Request): ChecksumName[] {
  const trailers = headerOf(request, "x-amz-trailer").toLowerCase().split(/ *, */);
  const sent = Object.keys(request.http.headers).concat(trailers);
  const names = sent
    .filter((name) => name.startsWith("x-amz-checksum-") && !/-(mode|type|algorithm)$/.test(name))
    .map((name) => name.slice("x-amz-checksum-".length));
  return names.map((name) => {
    const known = checksumNames.find((each) => each === name);
    if (known === undefined) throw new S3Error("NotImplemented", `the checksum ${name} is not known here`);
    return known;
  });
}
