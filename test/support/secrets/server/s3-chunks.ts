import { createHash } from "node:crypto";
import type { SignatureV4 } from "@smithy/signature-v4";
import type { Scope } from "./s3.js";

const sha256 = (bytes: Buffer | string): string => createHash("sha256").update(bytes).digest("hex");

/** Checks a body in chunks of which each is signed with the signature before it; with trailers, those as well. */
export class S3Chunks {
  readonly #signer: SignatureV4;
  readonly #scope: Scope;
  readonly #kind: string;
  #previous: string;

  constructor(signer: SignatureV4, scope: Scope, kind: string) {
    this.#signer = signer;
    this.#scope = scope;
    this.#kind = kind;
    this.#previous = scope.signature;
  }

  async check(body: Buffer): Promise<string> {
    const isSigned = this.#kind.startsWith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let at = 0;
    for (let count = 1; ; count++) {
      const end = body.indexOf("\r\n", at);
      const [, size = "", signature = ""] =
        /^([0-9a-f]+)(?:;chunk-signature=([0-9a-f]{64}))?$/i.exec(body.toString("latin1", at, end)) ?? [];
      const length = parseInt(size, 16);
      if (end < 0 || Number.isNaN(length)) return `wrong: chunk ${count} has no size`;
      const content = body.subarray(end + 2, end + 2 + length);
      if (isSigned && signature !== (await this.#next("PAYLOAD", [sha256(""), sha256(content)])))
        return `wrong: the signature of chunk ${count}`;
      at = end + 2 + length + (length === 0 ? 0 : 2);
      if (length > 0) continue;
      return this.#kind.endsWith("-TRAILER")
        ? this.#trailers(body.toString("latin1", at), isSigned)
        : `right: ${count} chunks`;
    }
  }

  async #trailers(text: string, isSigned: boolean): Promise<string> {
    const lines = text.split("\r\n").filter((line) => line !== "");
    const fields = lines.filter((line) => !line.startsWith("x-amz-trailer-signature:"));
    if (!isSigned) return `right: unsigned, with ${fields.length} trailers`;
    const wanted = await this.#next("TRAILER", [sha256(fields.map((line) => `${line}\n`).join(""))]);
    return lines.at(-1) === `x-amz-trailer-signature:${wanted}`
      ? `right: chunks with ${fields.length} trailers`
      : "wrong: the signature of the trailers";
  }

  async #next(what: "PAYLOAD" | "TRAILER", hashes: readonly string[]): Promise<string> {
    const { date, scope } = this.#scope;
    const time = date.toISOString().replaceAll(/[-:]|\.\d+/g, "");
    const text = [`AWS4-HMAC-SHA256-${what}`, time, scope, this.#previous, ...hashes].join("\n");
    this.#previous = await this.#signer.sign(text, { signingDate: date });
    return this.#previous;
  }
}
