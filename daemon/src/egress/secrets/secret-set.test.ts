import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { SecretSet } from "./secret-set.js";
import type { RequestHead } from "./substitution.js";
import { headOf, secretOf } from "./testing/secrets.js";

const secret = secretOf({ placeholder: "ph-abcdefgh", value: "real-value-1234" });
const set = SecretSet.compile([secret]);

async function sent(head: Partial<RequestHead>, body: string | Buffer | null = null, from = set) {
  const request = from.request(headOf({ ...head, hasBody: body !== null }));
  const outgoing = await request.send(body === null ? null : Readable.from([Buffer.from(body)]));
  const bytes = outgoing.body === null ? null : (await buffer(outgoing.body)).toString("latin1");
  return { ...outgoing, body: bytes, used: request.used() };
}

describe("SecretSet", () => {
  it("puts the value into fields, path, query and body of a request to its host", async () => {
    const result = await sent(
      { headers: [["X-Key", "a ph-abcdefgh b"], ["Content-Length", "24"]], target: "/ph-abcdefgh?k=ph-abcdefgh", contentLength: 24 },
      '{"token": "ph-abcdefgh"}',
    ); // prettier-ignore
    expect(result).toMatchObject({
      target: "/real-value-1234?k=real-value-1234",
      headers: [["X-Key", "a real-value-1234 b"], ["Content-Length", "28"]],
      contentLength: 28,
      body: '{"token": "real-value-1234"}',
      used: ["TOKEN"],
    }); // prettier-ignore
  });

  it("leaves a request without placeholders as it is", async () => {
    const headers: [string, string][] = [["A", "b"], ["Authorization", "Basic dTpw"], ["a", "c"]]; // prettier-ignore
    const request = set.request(headOf({ headers, target: "/x?%70" }));
    expect(request.collects).toBe(false);
    expect(await request.send(null)).toEqual({ target: "/x?%70", headers, contentLength: 0, body: null });
    expect(request.used()).toEqual([]);
  });

  it("refuses a placeholder on its way to another host, and says what to do", () => {
    const head = headOf({ host: "other.example.org", headers: [["X-Key", "ph-abcdefgh"]] });
    expect(() => set.request(head)).toThrow(
      'Cannot send the placeholder of secret "TOKEN" in the header fields: it is for api.example.com, not for other.example.org; ' +
        "add the host to its allowed_hosts, or take the placeholder out",
    );
  });

  it("puts values into what is compressed and sends it without, or as it came where nothing was to be put in", async () => {
    const headers: [string, string][] = [["Content-Encoding", "gzip"], ["Content-Type", "text/plain"]]; // prettier-ignore
    const zipped = gzipSync("is ph-abcdefgh");
    expect(await sent({ headers, contentLength: zipped.length }, zipped)).toMatchObject({
      headers: [["Content-Type", "text/plain"], ["Content-Length", "18"]], // prettier-ignore
      body: "is real-value-1234",
    });
    const other = gzipSync("nothing");
    const result = await sent({ headers, contentLength: other.length }, other);
    expect([result.headers, result.body]).toEqual([headers, other.toString("latin1")]);
  });
});
