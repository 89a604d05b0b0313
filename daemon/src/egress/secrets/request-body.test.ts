import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Secret } from "../../core/secrets/secret.js";
import { usualGrowth, type Growth } from "./content-coding.js";
import { form, json, plain } from "./forms.js";
import { Needle } from "./replacer.js";
import { SecretSet } from "./secret-set.js";
import { fuzzAsync } from "./testing/fuzz-async.js";
import { naive } from "./testing/naive.js";
import { cutAt } from "./testing/pieces.js";
import { headOf, secretOf } from "./testing/secrets.js";
import { noTokens } from "./tokens.js";

const secrets = [
  secretOf({ name: "A", placeholder: "ph/abcdef", value: 'a"b&c\\d/é ph/abcdefgh' }),
  secretOf({ name: "B", placeholder: "ph/abcdefgh", value: "equal-len-1" }),
  secretOf({ name: "C", placeholder: "other-one", value: "x", allowedHosts: ["example.org"], elsewhere: "pass" }),
];
const zip = { gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync, identity: (bytes: Buffer) => bytes };

interface Given {
  readonly type?: string;
  readonly coding?: keyof typeof zip;
  /** whether the client says how long it is */
  readonly told?: boolean;
  readonly from?: readonly Secret[];
  readonly growth?: Growth;
}

async function sent(
  pieces: readonly Buffer[],
  { type = "text/plain", coding = "identity", told = true, from = secrets, growth = usualGrowth }: Given = {},
) {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const headers: [string, string][] = [["Content-Type", type]];
  if (coding !== "identity") headers.push(["Content-Encoding", coding]);
  if (told) headers.push(["Content-Length", String(length)]);
  const request = SecretSet.compile(from, noTokens, growth).request(
    headOf({ headers, hasBody: true, contentLength: told ? length : null }),
  );
  const outgoing = await request.send(Readable.from(pieces, { objectMode: false }));
  const body = await buffer(outgoing.body!);
  return { ...outgoing, body, uses: request.uses(), collects: request.collects };
}

const types = { "text/plain": ["plain", plain], "application/json; charset=utf-8": ["json", json], "application/x-www-form-urlencoded": ["percent", form] } as const; // prettier-ignore

describe("The body of a request", () => {
  it("is what replacing in the whole gives, in each form and coding, wherever it is cut", async () => {
    const part = fc.constantFrom("ph/abcdef", "ph/abcdefgh", "ph/", "other-one", "ph\\/abcdef", "ph%2Fabcdef", "p\\u0068/abcdefgh", "gh", "\\", "%", "é", '"', "x".repeat(50));
    const whole = fc.array(part, { maxLength: 12 }).map((parts) => Buffer.from(parts.join("")));
    const type = fc.constantFrom(...(Object.keys(types) as (keyof typeof types)[]));
    const coding = fc.constantFrom(...(Object.keys(zip) as (keyof typeof zip)[]));
    await fuzzAsync(
      fc.asyncProperty(whole, type, coding, fc.boolean(), fc.array(fc.nat(400), { maxLength: 8 }), async (text, kind, code, told, cuts) => {
        const [view, written] = types[kind];
        const patterns = secrets.map(({ name, placeholder, value }) => ({
          needle: new Needle(Buffer.from(placeholder)),
          put: name === "C" ? null : written.write(value),
        }));
        const result = await sent(cutAt(zip[code](text), cuts), { type: kind, coding: code, told });
        const coded = result.headers.some(([name]) => name === "Content-Encoding");
        const expected = naive(text, patterns, view);
        expect((coded ? zip[code](expected) : result.body).toString("latin1")).toBe((coded ? result.body : expected).toString("latin1"));
        // as it came where nothing was put in, without its coding otherwise
        expect(coded).toBe(code !== "identity" && result.uses.length === 0);
        if (result.contentLength !== null) expect(result.contentLength).toBe(result.body.length);
        expect(result.headers.find(([name]) => name === "Content-Length")?.[1]).toBe(result.contentLength === null ? undefined : String(result.body.length));
        if (code === "identity" && !told) expect(result.contentLength).toBeNull();
      }),
      300,
    );
  }, 60_000); // prettier-ignore

  it("is not waited for where its length stays, or was not told", async () => {
    const same = [secrets[1]!];
    expect(await sent([Buffer.from("ph/abcdefgh")], { from: same })).toMatchObject({ collects: false, contentLength: 11, body: Buffer.from("equal-len-1") });
    expect(await sent([Buffer.from("ph/abcdefgh")], { from: same, type: "application/json" })).toMatchObject({ collects: true, contentLength: 11 });
    expect(await sent([Buffer.from("ph/abcdef")], { told: false })).toMatchObject({ collects: false, contentLength: null });
  }); // prettier-ignore

  it("goes on in chunks where it is too long to be waited for", async () => {
    const filler = Buffer.alloc(100_000, "x");
    const result = await sent([...Array.from({ length: 15 }, () => filler), Buffer.from("ph/abcdef")]);
    expect(result.contentLength).toBeNull();
    expect(result.headers).toEqual([["Content-Type", "text/plain"]]);
    expect(result.body.length).toBe(1_500_000 + Buffer.byteLength(secrets[0]!.value));
    const zipped = await sent(
      cutAt(gzipSync(Buffer.concat([Buffer.alloc(3_000_000, "x"), Buffer.from("ph/abcdef")])), [1_000]),
      { coding: "gzip" },
    );
    expect([zipped.contentLength, zipped.headers]).toEqual([null, [["Content-Type", "text/plain"]]]);
    expect(zipped.body.length).toBe(3_000_000 + Buffer.byteLength(secrets[0]!.value));
  });

  it.each([
    ["as it is", "identity", "text/plain", "a ph/abcdefgh"],
    ["in a string of JSON", "identity", "application/json", '"ph\\/abc\\u0064efgh"'],
    ["percent-encoded", "identity", "application/x-www-form-urlencoded", "a=ph%2fabcdefgh"],
    ["compressed", "gzip", "text/plain", "a ph/abcdefgh"],
    ["compressed with brotli", "br", "application/json", '"ph\\/abcdefgh"'],
  ] as const)("ends where a placeholder shows up that may not stand there, %s", async (_, coding, type, text) => {
    const from = [{ ...secrets[1]!, locations: ["header"] as const }];
    const bytes = zip[coding](Buffer.from(text));
    await expect(sent(cutAt(bytes, [8, 9, 10]), { coding, type, from })).rejects.toMatchObject({ name: "SecretRefusal", where: "body", secret: "B" });
    const passed = await sent(cutAt(bytes, [8, 9, 10]), { coding, type, from: [{ ...from[0]!, elsewhere: "pass" }] });
    expect([passed.body, passed.contentLength]).toEqual([bytes, bytes.length]);
    const nothing = zip[coding](Buffer.from("nothing"));
    expect((await sent([nothing], { coding, type, from })).body).toEqual(nothing);
  }); // prettier-ignore

  it("leaves the client's stream open when it ends, so that the client can be answered", async () => {
    const from = [{ ...secrets[1]!, locations: ["header"] as const }];
    const source = new Readable({ read: () => undefined });
    source.push("a ph/abcdefgh b");
    const outgoing = await SecretSet.compile(from)
      .request(headOf({ hasBody: true }))
      .send(source);
    await expect(buffer(outgoing.body!)).rejects.toThrow(/in the body/);
    expect(source.destroyed).toBe(false);
  });

  it("breaks when the client's stream does", async () => {
    for (const from of [secrets, [{ ...secrets[1]!, locations: ["header"] as const }]]) {
      const source = new Readable({ read: () => undefined });
      source.push("half");
      const request = SecretSet.compile(from).request(headOf({ hasBody: true, contentLength: 100 }));
      setImmediate(() => source.destroy());
      await expect(request.send(source).then(({ body }) => buffer(body!))).rejects.toThrow(
        /ended before its time|[Pp]remature/,
      );
    }
  });

  const watching = [{ ...secrets[1]!, locations: ["header"] as const }];
  it.each(["gzip", "br", "deflate"] as const)("ends where it does not decode: %s", async (coding) => {
    for (const from of [secrets, watching]) {
      const bytes = Buffer.from("no such thing, of some length");
      await expect(sent([bytes], { coding, from })).rejects.toMatchObject({
        name: "UnreadableContent",
        side: "client",
      });
      const half = zip[coding](Buffer.from("cut off")).subarray(0, 8);
      await expect(sent([half], { coding, from })).rejects.toMatchObject({ name: "UnreadableContent", side: "client" });
    }
  });

  it("ends where it is a bomb, which goes on as a whole where growth has no limit", async () => {
    const bomb = gzipSync(Buffer.alloc(70_000_000), { level: 9 });
    const growth = { harmlessBytes: Infinity, maxRatio: Infinity };
    for (const from of [secrets, watching]) {
      const sending = sent(cutAt(bomb, [10_000, 60_000]), { coding: "gzip", from });
      expect(await sending.then(() => "sent", String)).toMatch(/grows beyond all measure/);
      const { body } = await sent(cutAt(bomb, [10_000, 60_000]), { coding: "gzip", from, growth });
      expect(body.length).toBe(from === secrets ? 70_000_000 : bomb.length);
    }
  }, 30_000);

  it("passes as it is in a coding that is not known", async () => {
    const headers: [string, string][] = [["Content-Encoding", "zstd"]];
    const request = SecretSet.compile(secrets).request(headOf({ headers, hasBody: true, contentLength: 9 }));
    const { body, headers: out } = await request.send(Readable.from([Buffer.from("ph/abcdef")], { objectMode: false }));
    expect([(await buffer(body!)).toString(), out]).toEqual(["ph/abcdef", headers]);
  });
});
