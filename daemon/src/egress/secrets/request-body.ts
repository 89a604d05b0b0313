import { Transform, type Readable, type TransformCallback } from "node:stream";
import type { AwsSignature } from "./aws/aws-signature.js";
import { Chain } from "./chain.js";
import { codingsOf, decodingStreams, undecodable, type Coding, type Growth } from "./content-coding.js";
import { fieldValues } from "./fields.js";
import { formOf, plain, type Form } from "./forms.js";
import { feed, gather, streamOf } from "./gather.js";
import type { Grants } from "./grants.js";
import { Replacer, type Pattern } from "./replacer.js";
import { ReplaceStream } from "./replace-stream.js";
import { SecretRefusal } from "./secret-refusal.js";
import type { RequestHead } from "./substitution.js";
import { WatchStream } from "./watch-stream.js";

/** bytes of a body that are waited for, so that its length can be told; and so that it can be signed, which needs all of it */
const maxCollectedBytes = 1024 * 1024;
const maxSignedBytes = 16 * 1024 * 1024;

export interface PutBody {
  readonly body: Readable;
  /** bytes; null where they are not known */
  readonly length: number | null;
  /** that it is without the codings that the client gave it */
  readonly decoded: boolean;
  /** all of it, where it was collected */
  readonly bytes: Buffer | null;
}

/**
 * - pass: as it is, since nothing is looked for, or nothing can be
 * - watch: as it is, and refused where a placeholder shows up
 * - stream: piece by piece, with the values put in
 * - collect: the same, but its length is to be found out
 */
export type BodyMode = "pass" | "watch" | "stream" | "collect";

/** The body of a request, with what is to be put into it. */
export class RequestBody {
  readonly mode: BodyMode;
  readonly #patterns: readonly Pattern[];
  readonly #codings: readonly Coding[];
  readonly #form: Form;
  readonly #length: number | null;
  readonly #signature: AwsSignature | null;
  readonly #growth: Growth;
  #hits = 0;

  constructor(
    head: { headers: RequestHead["headers"]; length: number | null; growth: Growth },
    grants: Grants,
    signature: AwsSignature | null,
  ) {
    const { headers: fields, length, growth } = head;
    const codings = codingsOf(fieldValues(fields, "content-encoding"));
    this.#codings = codings ?? [];
    this.#form = formOf(fieldValues(fields, "content-type")[0] ?? "");
    this.#length = length;
    this.#signature = signature;
    this.#growth = growth;
    const chunks = signature?.payload.kind === "chunks";
    this.#patterns = grants
      .patterns("body", this.#form)
      .map((pattern) =>
        pattern.put === null ? pattern : chunks ? unsignable(pattern, signature) : this.#counted(pattern),
      );
    // compressed within chunks: it cannot be looked into, and nothing is put in
    const closed = codings === null || (chunks && codings.length > 0);
    this.mode = closed ? "pass" : this.#choose();
  }

  /** What is to be sent; reads `body` from here on. Rejects with what ends the body. */
  async begin(body: Readable): Promise<PutBody> {
    const known = { length: this.#length, decoded: false, bytes: null };
    if (this.mode === "pass") return { ...known, body };
    const replace = new ReplaceStream(new Replacer(this.#patterns, (raw, last) => this.#form.viewOf(raw, last)));
    if (this.mode === "watch" && this.#codings.length > 0) {
      return {
        ...known,
        body: feed(
          body,
          new WatchStream([...decodingStreams(this.#codings, "client", this.#growth), replace], undecodable("client")),
        ),
      };
    }
    if (this.mode !== "collect") return { ...known, body: feed(body, replace) };
    return this.#collect(body, replace);
  }

  #counted(pattern: Pattern): Pattern {
    return {
      ...pattern,
      found: () => {
        pattern.found?.();
        this.#hits += 1;
      },
    };
  }

  async #collect(body: Readable, replace: ReplaceStream): Promise<PutBody> {
    const hashed = this.#signature?.payload.kind === "hashed";
    const limit = hashed ? maxSignedBytes : maxCollectedBytes;
    const decoded = this.#codings.length > 0;
    const tap = new Tap(decoded ? limit : 0);
    const stream = decoded
      ? new Chain([tap, ...decodingStreams(this.#codings, "client", this.#growth), replace], undecodable("client"))
      : replace;
    feed(body, stream);
    const { bytes, whole } = await gather(stream, limit);
    if (!whole && hashed) {
      stream.destroy();
      throw new SecretRefusal(this.#signature.secret, "signature", tooLong);
    }
    if (!whole) return { body: stream, length: null, decoded, bytes: null };
    // as the client sent it, where there was nothing to put in
    if (decoded && this.#hits === 0 && tap.bytes !== null) return { ...settled(tap.bytes), decoded: false };
    return { ...settled(bytes), decoded };
  }

  #choose(): BodyMode {
    const changing = this.#patterns.filter(({ put }) => put !== null);
    const payload = this.#signature?.payload;
    if (payload?.kind === "hashed" && (payload.given === null || changing.length > 0)) return "collect";
    if (changing.length === 0) return this.#patterns.some(({ found }) => found !== undefined) ? "watch" : "pass";
    if (this.#codings.length > 0) return "collect";
    // an escaped placeholder is longer than it is, so only in plain bytes it is certain that the length stays
    const stays = this.#form === plain && changing.every(({ put, needle }) => put?.length === needle.bytes.length);
    return this.#length === null || stays ? "stream" : "collect";
  }
}

const tooLong = `its body is of more than ${maxSignedBytes} bytes, and is to be signed as a whole; send less, or in signed chunks`;
const inChunks = "its body comes in chunks that are signed, into which nothing can be put; take the placeholder out";

function unsignable({ needle }: Pattern, { secret }: AwsSignature): Pattern {
  return {
    needle,
    put: null,
    found: () => {
      throw new SecretRefusal(secret, "signature", inChunks);
    },
  };
}

function settled(bytes: Buffer): Omit<PutBody, "decoded"> {
  return { body: streamOf(bytes), length: bytes.length, bytes };
}

/** Passes bytes on and keeps them, up to a limit. */
class Tap extends Transform {
  readonly #limit: number;
  #chunks: Buffer[] | null = [];
  #length = 0;

  constructor(limit: number) {
    super();
    this.#limit = limit;
  }

  /** null where there were more */
  get bytes(): Buffer | null {
    return this.#chunks === null ? null : Buffer.concat(this.#chunks);
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#length += chunk.length;
    if (this.#length > this.#limit) this.#chunks = null;
    this.#chunks?.push(chunk);
    done(null, chunk);
  }
}
