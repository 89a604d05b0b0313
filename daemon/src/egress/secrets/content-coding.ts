import { Transform, type TransformCallback } from "node:stream";
import { constants, createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import { SecretRefusal, UnreadableContent } from "./secret-refusal.js";

/** How far a body may grow when it is decoded. */
export interface Growth {
  /** decoded bytes below which nothing is a bomb */
  readonly harmlessBytes: number;
  /** how many times the encoded bytes there may be beyond */
  readonly maxRatio: number;
}

export const usualGrowth: Growth = { harmlessBytes: 64 * 1024 * 1024, maxRatio: 250 };
/** codings of one body, one over the other */
const maxCodings = 2;

/** What can be decoded, with the names that stand in fields. */
const decoders = {
  gzip: () => createGunzip(),
  "x-gzip": () => createGunzip(),
  deflate: () => createInflate(),
  br: () => createBrotliDecompress({ params: { [constants.BROTLI_DECODER_PARAM_LARGE_WINDOW]: 0 } }),
} satisfies Record<string, () => Transform>;

export type Coding = keyof typeof decoders;

/** The codings of a body, in the order they were applied; null where one is not known. */
export function codingsOf(contentEncoding: readonly string[]): readonly Coding[] | null {
  const names = contentEncoding
    .flatMap((value) => value.toLowerCase().split(","))
    .map((name) => name.trim())
    // aws-chunked is a framing within the body, which storage services keep as if it were a coding
    .filter((name) => name !== "" && name !== "identity" && name !== "aws-chunked");
  return names.length <= maxCodings && names.every(isCoding) ? names : null;
}

/** Streams that decode a body, the last coding first, each with a limit to what it makes of what comes. */
export function decodingStreams(codings: readonly Coding[], side: "client" | "server", growth: Growth): Transform[] {
  return codings.toReversed().flatMap((coding) => {
    const decoder = decoders[coding]();
    return [decoder, new GrowthLimit(decoder, side, growth)];
  });
}

/** What to end with where a decoder, or what comes after it, failed. */
export function undecodable(side: "client" | "server"): (error: Error) => Error {
  return (error) =>
    error instanceof SecretRefusal || error instanceof UnreadableContent || !("errno" in error)
      ? error
      : new UnreadableContent(side, "a body that does not decode");
}

/**
 * An Accept-Encoding of which the answer can be looked into: without the codings that are not known, and without deflate, which servers
 * take for two things.
 */
export function acceptable(acceptEncoding: string): string {
  const kept = acceptEncoding.split(",").filter((part) => /^\s*(?:gzip|x-gzip|br|identity)\s*(?:;|$)/i.test(part));
  return kept.length === 0 ? "identity" : kept.map((part) => part.trim()).join(", ");
}

/** Whether a client takes a coding, as it would be if it said so; none is taken where it says nothing. */
export function accepts(acceptEncoding: string | null, codings: readonly Coding[]): boolean {
  const taken = new Set(
    (acceptEncoding ?? "")
      .toLowerCase()
      .split(",")
      .filter((part) => !/;\s*q=0(?:\.0*)?\s*$/.test(part))
      .map((part) => part.replace(/;.*/, "").trim()),
  );
  return codings.every((coding) => taken.has(coding) || taken.has("*"));
}

/** Ends a decoder that makes far more of its bytes than content has in it. */
class GrowthLimit extends Transform {
  readonly #decoder: { readonly bytesWritten?: number };
  readonly #side: "client" | "server";
  readonly #growth: Growth;
  #bytes = 0;

  constructor(decoder: Transform, side: "client" | "server", growth: Growth) {
    super();
    this.#decoder = decoder as { bytesWritten?: number };
    this.#side = side;
    this.#growth = growth;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#bytes += chunk.length;
    const encoded = this.#decoder.bytesWritten ?? 0;
    const { harmlessBytes, maxRatio } = this.#growth;
    if (this.#bytes > harmlessBytes && this.#bytes > encoded * maxRatio) {
      done(new UnreadableContent(this.#side, "a body that grows beyond all measure when it is decoded"));
    } else {
      done(null, chunk);
    }
  }
}

function isCoding(name: string): name is Coding {
  return Object.hasOwn(decoders, name);
}
