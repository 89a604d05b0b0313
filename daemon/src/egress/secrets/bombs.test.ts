import { Readable, type Duplex } from "node:stream";
import { brotliCompressSync, constants, deflateSync, gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { usualGrowth, type Growth } from "./content-coding.js";
import { feed } from "./gather.js";
import { SecretSet } from "./secret-set.js";
import { cutAt } from "./testing/pieces.js";
import { headOf, secretOf } from "./testing/secrets.js";
import { noTokens } from "./tokens.js";

const mebi = 1_048_576;
const bombBytes = 8 * mebi;
const zeros = Buffer.alloc(bombBytes);
const once = gzipSync(zeros, { level: 6 });
const bombs: Readonly<Record<string, Buffer>> = {
  gzip: once,
  deflate: deflateSync(zeros, { level: 6 }),
  br: brotliCompressSync(zeros, { params: { [constants.BROTLI_PARAM_QUALITY]: 2 } }),
  "gzip, gzip": gzipSync(once),
};
const narrow: Growth = { ...usualGrowth, harmlessBytes: mebi };

const putting = secretOf({ placeholder: "ph-0123456789", value: "a-real-value" });
const watching = { ...putting, locations: ["header"] as const };

/** Leads a body through; bytes of it that came out before its end, and how that came. */
async function through(begin: () => Promise<Readable>): Promise<{ bytes: number; end: string }> {
  let bytes = 0;
  try {
    for await (const chunk of (await begin()) as AsyncIterable<Buffer>) bytes += chunk.length;
    return { bytes, end: "whole" };
  } catch (error) {
    return { bytes, end: String(error) };
  }
}

const pieces = (coding: string): Readable =>
  Readable.from(cutAt(bombs[coding]!, [500, 10_000, 60_000]), { objectMode: false });

type Way = (coding: string, growth: Growth) => Promise<{ bytes: number; end: string }>;

const sent =
  (secret: typeof putting): Way =>
  (coding, growth) => {
    const { length } = bombs[coding]!;
    const headers: [string, string][] = [
      ["Content-Type", "text/plain"],
      ["Content-Encoding", coding],
      ["Content-Length", String(length)],
    ];
    const head = headOf({ headers, hasBody: true, contentLength: length });
    const request = SecretSet.compile([secret], noTokens, growth).request(head);
    return through(async () => (await request.send(pieces(coding))).body!);
  };

const answer =
  (accepted: string): Way =>
  (coding, growth) => {
    const head = headOf({ headers: [["Accept-Encoding", accepted]] });
    const scrub = SecretSet.compile([putting], noTokens, growth).request(head).answer;
    const { body } = scrub.head(200, [["Content-Encoding", coding]], true);
    return through(() => Promise.resolve(feed(pieces(coding), body as Duplex)));
  };

/** Where bodies are decoded, and whether what comes out is what was decoded or what came in. */
const ways: readonly [string, Way, "decoded" | "as it came"][] = [
  ["a request into which values may be put", sent(putting), "decoded"],
  ["a request that is only looked into", sent(watching), "as it came"],
  ["an answer", answer("gzip, deflate, br"), "decoded"],
  ["an answer to a client that did not ask for its coding", answer("identity"), "as it came"],
];

describe.each(Object.keys(bombs))("a bomb of %s", (coding) => {
  it.each(ways)("in %s is given up where it has grown too far, and unpacked as a whole where the limit is beyond it", async (...way) => {
    const [, lead, out] = way;
    const limited = await lead(coding, narrow);
    expect(limited.end).toMatch(/grows beyond all measure/);
    expect(limited.bytes).toBeLessThanOrEqual(narrow.harmlessBytes);
    // which takes it for harmless
    expect(await lead(coding, usualGrowth)).toEqual({
      bytes: out === "decoded" ? bombBytes : bombs[coding]!.length,
      end: "whole",
    });
  }); // prettier-ignore
});
