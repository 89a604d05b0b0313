import { Readable, type Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import { brotliCompressSync, createGzip, deflateSync, gzipSync, constants } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fuzzAsync } from "./testing/fuzz-async.js";
import { Replacer } from "./replacer.js";
import { ReplaceStream } from "./replace-stream.js";
import { SecretSet } from "./secret-set.js";
import type { Fields, ResponseScrub, ScrubbedAnswer } from "./substitution.js";
import { naive } from "./testing/naive.js";
import { cutAt } from "./testing/pieces.js";
import { headOf, secretOf } from "./testing/secrets.js";
import { scrubPatterns } from "./scrub.js";

const same = secretOf({ placeholder: "ph-0123456789", value: "real-abcdefgh" });
const odd = secretOf({ name: "ODD", placeholder: "ph-odd", value: `a/b"c&d<é>'e f` });

function answer(secrets = [same, odd], headers: Fields = [["Accept-Encoding", "gzip, br"]]): ResponseScrub {
  return SecretSet.compile(secrets).request(headOf({ headers })).answer;
}

async function told(scrub: ResponseScrub, headers: Fields, pieces: readonly Buffer[], status = 200) {
  const { headers: fields, body } = scrub.head(status, headers, true);
  return {
    headers: fields,
    body: body === null ? null : await buffer(Readable.from(pieces, { objectMode: false }).pipe(streamed(body))),
  };
}

/** What a body passes through, as a stream. */
function streamed(body: NonNullable<ScrubbedAnswer["body"]>): Duplex {
  return body instanceof Replacer ? new ReplaceStream(body) : (body as Duplex);
}

describe("An answer", () => {
  it("has placeholders in place of values, in fields, status, body and trailers", async () => {
    const scrub = answer();
    const headers: Fields = [["Location", "/x?t=real-abcdefgh&o=a%2fb%22c%26d%3c%c3%a9%3e%27e%20f"], ["X", "real-abcdefgh real-abcdefgh"]];
    const result = await told(scrub, headers, [Buffer.from("a real-abc"), Buffer.from("defgh b")]);
    expect(result.headers).toEqual([["Location", "/x?t=ph-0123456789&o=ph-odd"], ["X", "ph-0123456789 ph-0123456789"]]);
    expect(result.body?.toString()).toBe("a ph-0123456789 b");
    expect(scrub.text("No real-abcdefgh")).toBe("No ph-0123456789");
    expect(scrub.trailers([["T", "real-abcdefgh"]])).toEqual([["T", "ph-0123456789"]]);
  }); // prettier-ignore

  const writings: [string, string][] = [
    ["JSON", JSON.stringify(odd.value)],
    ["JSON with its slashes escaped", JSON.stringify(odd.value).replaceAll("/", "\\/")],
    [
      "JSON as Go writes it",
      JSON.stringify(odd.value).replaceAll("&", "\\u0026").replaceAll("<", "\\u003c").replaceAll(">", "\\u003e"),
    ],
    ["JSON as Python writes it", JSON.stringify(odd.value).replaceAll("é", "\\u00e9")],
    ["JSON as PHP writes it", JSON.stringify(odd.value).replaceAll("é", "\\u00e9").replaceAll("/", "\\/")],
    ["a component of a URL", encodeURIComponent(odd.value)],
    ["a form", new URLSearchParams({ a: odd.value }).toString()],
    [
      "HTML",
      odd.value
        .replaceAll("&", "&amp;")
        .replaceAll('"', "&quot;")
        .replaceAll("<", "&lt;")
        .replaceAll(">", "&gt;")
        .replaceAll("'", "&#x27;"),
    ],
  ];
  it.each(writings)("has them also where the value is written as %s", async (_, text) => {
    const { body } = await told(answer(), [], cutAt(Buffer.from(`before ${text} after`), [9, 10, 11, 20]));
    expect(body?.toString()).toContain("ph-odd");
    expect(body?.toString()).not.toMatch(/b"|b\\|b%|b&/);
  });

  it("has the credentials as the client sent them where they come back as the server got them", async () => {
    const sent = `Basic ${Buffer.from("me:ph-0123456789").toString("base64")}`;
    const real = `Basic ${Buffer.from("me:real-abcdefgh").toString("base64")}`;
    const scrub = answer([same], [["Authorization", sent]]);
    const { headers, body } = await told(
      scrub,
      [["X-Echo", real]],
      [Buffer.from(JSON.stringify({ authorization: real }))],
    );
    expect([headers, body?.toString()]).toEqual([[["X-Echo", sent]], JSON.stringify({ authorization: sent })]);
  });

  it("keeps its length where placeholders and values have one length, and is without one otherwise", async () => {
    const headers: Fields = [["Content-Length", "13"]];
    expect((await told(answer([same]), headers, [Buffer.from("real-abcdefgh")])).headers).toEqual(headers);
    expect((await told(answer([same, odd]), headers, [Buffer.from("real-abcdefgh")])).headers).toEqual([]);
    expect(answer().head(304, headers, false)).toEqual({ headers, body: null });
  });

  it("passes on each event as it comes, also out of a compressed stream", async () => {
    for (const coding of ["identity", "gzip"]) {
      const body = streamed(answer().head(200, [["Content-Encoding", coding]], true).body!);
      const source = coding === "gzip" ? createGzip({ flush: constants.Z_SYNC_FLUSH }) : null;
      source?.pipe(body);
      const got: string[] = [];
      body.on("data", (chunk: Buffer) => got.push(chunk.toString()));
      for (const event of ["data: one\n\n", "data: real-abcdefgh\n\n", "data: r\n\n"]) {
        (source ?? body).write(event);
        await expect.poll(() => got.join("")).toContain(event.replace("real-abcdefgh", "ph-0123456789"));
      }
      body.destroy();
    }
  });

  it.each([["gzip", gzipSync], ["br", brotliCompressSync]] as const)("is decoded for a client that takes %s", async (coding, zip) => {
    const headers: Fields = [["Content-Encoding", coding], ["Content-Length", "9"], ["A", "b"]];
    const result = await told(answer(), headers, cutAt(zip(Buffer.from("a real-abcdefgh b")), [5, 11]));
    expect([result.headers, result.body?.toString()]).toEqual([[["A", "b"]], "a ph-0123456789 b"]);
  }); // prettier-ignore

  it("is the same file for a client that did not ask for compression, unless there is a value in it", async () => {
    const headers: Fields = [["Content-Encoding", "gzip"], ["Content-Length", "9"]]; // prettier-ignore
    const file = gzipSync("a file");
    expect(await told(answer([same], []), headers, cutAt(file, [7, 12]))).toEqual({ headers, body: file });
    const after = [deflateSync("a file"), Buffer.from(" real-abcdefgh")];
    await expect(told(answer([same], []), [["Content-Encoding", "deflate"]], after)).rejects.toThrow(/tells the value/);
    const telling = gzipSync("a real-abcdefgh b");
    await expect(told(answer([same], []), headers, cutAt(telling, [7, 12]))).rejects.toThrow(
      /tells the value of a secret/,
    );
  });

  it("is not passed on where it cannot be looked into", async () => {
    const scrub = answer();
    for (const coding of ["zstd", "gzip, gzip, gzip"]) {
      expect(() => scrub.head(200, [["Content-Encoding", coding]], true)).toThrow(/a coding that is not known/);
    }
    expect(() => scrub.head(206, [["Content-Encoding", "gzip"]], true)).toThrow(
      /a part of an answer that is compressed/,
    );
    const broken = told(scrub, [["Content-Encoding", "gzip"]], [Buffer.from("no gzip at all")]);
    await expect(broken).rejects.toMatchObject({ name: "UnreadableContent", side: "server" });
  });

  it("is asked for in codings that can be looked into, and as it is where only a part is asked for", async () => {
    const sent = async (headers: Fields) =>
      (await SecretSet.compile([same]).request(headOf({ headers })).send(null)).headers;
    expect(await sent([["Accept-Encoding", "gzip, deflate, br;q=0.9, zstd"]])).toEqual([
      ["Accept-Encoding", "gzip, br;q=0.9"],
    ]);
    expect(await sent([["Accept-Encoding", "zstd, *"]])).toEqual([["Accept-Encoding", "identity"]]);
    expect(await sent([["A", "b"]])).toEqual([["A", "b"]]);
    const range: Fields = [["Range", "bytes=0-9"], ["Accept-Encoding", "gzip"]]; // prettier-ignore
    expect(await sent(range)).toEqual([["Range", "bytes=0-9"], ["Accept-Encoding", "identity"]]); // prettier-ignore
  });

  it("is what replacing in the whole gives, wherever it is cut, compressed or not", async () => {
    const patterns = scrubPatterns([odd, same].map(({ name, value, placeholder }) => ({ secret: name, value, placeholder })));
    const part = fc.constantFrom(...writings.map(([, text]) => text), "real-", "abcdefgh", "real-abcdefgh", "a/b", "\\", "real-abcdefghreal", "x".repeat(40));
    const whole = fc.array(part, { maxLength: 8 }).map((parts) => Buffer.from(parts.join("")));
    await fuzzAsync(
      fc.asyncProperty(whole, fc.boolean(), fc.array(fc.nat(500), { maxLength: 10 }), async (text, zipped, cuts) => {
        const headers: Fields = zipped ? [["Content-Encoding", "gzip"]] : [];
        const { body } = await told(answer(), headers, cutAt(zipped ? gzipSync(text) : text, cuts));
        expect(body?.toString()).toBe(naive(text, patterns, "plain").toString());
        expect(body?.includes(same.value)).toBe(false);
      }),
      300,
    );
  }, 60_000); // prettier-ignore
});
