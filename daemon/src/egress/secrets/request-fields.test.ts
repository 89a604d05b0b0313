import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fuzz } from "../../core/egress/testing/fuzz.js";
import type { Secret } from "../../core/secrets/secret.js";
import { Grants, Entry } from "./grants.js";
import { Needle } from "./replacer.js";
import { putIntoFields } from "./request-fields.js";
import { putIntoTarget } from "./request-target.js";
import { SecretSet } from "./secret-set.js";
import type { Fields, RequestHead } from "./substitution.js";
import { naive } from "./testing/naive.js";
import { headOf, secretOf } from "./testing/secrets.js";
import { noTokens } from "./tokens.js";

const secret = secretOf({ placeholder: "ph-abcdefgh", value: "real value" });

async function sent(secrets: readonly Secret[], head: Partial<RequestHead>) {
  const request = SecretSet.compile(secrets).request(headOf(head));
  const { headers, target } = await request.send(null);
  return { headers, target, uses: request.uses() };
}

function grantsOf(secrets: readonly Secret[]): Grants {
  return new Grants(secrets.map((one) => new Entry(one)), headOf(), noTokens); // prettier-ignore
}

const basic = (text: string): string => `Basic ${Buffer.from(text).toString("base64")}`;

describe("The head of a request", () => {
  it("has values in credentials, which are decoded and encoded again", async () => {
    const headers: Fields = [["Authorization", basic("x-token:ph-abcdefgh")]];
    const result = await sent([secret], { headers });
    expect(result.headers).toEqual([["Authorization", basic("x-token:real value")]]);
    expect(result.uses).toEqual([{ secret: "TOKEN", locations: ["basic"] }]);
    const only = [{ ...secret, locations: ["header"] as const }];
    await expect(sent(only, { headers })).rejects.toMatchObject({ where: "basic", secret: "TOKEN" });
  });

  it("has values percent-encoded in path and query, also where the placeholder is", async () => {
    const odd = { ...secret, value: "a/b?c=d&e#é+:@ %" };
    const target = "/p/ph-abcdefgh/ph%2Dabcdefgh?k=ph-abcdefgh&l=%70h%2dabcdefg%68#f";
    const path = "a%2Fb%3Fc=d&e%23%C3%A9+:@%20%25";
    const query = "a%2Fb%3Fc%3Dd%26e%23%C3%A9%2B%3A%40%20%25";
    expect((await sent([odd], { target })).target).toBe(`/p/${path}/${path}?k=${query}&l=${query}#f`);
  });

  it("has the field that a secret adds, whatever the client sends of that name", async () => {
    const adding = { ...secret, injectHeader: { name: "X-Key", value: "Bearer ph-abcdefgh" } };
    const other = secretOf({ name: "Z", placeholder: "Bearer-z", value: "z-value", injectHeader: { name: "Authorization", value: basic("u:Bearer-z") } });
    const result = await sent([adding, other], { headers: [["x-key", "mine"], ["A", "b"], ["X-KEY", "more"]] });
    expect(result.headers).toEqual([["A", "b"], ["X-Key", "Bearer real value"], ["Authorization", basic("u:z-value")]]);
    const elsewhere = await sent([adding], { host: "example.org", headers: [["x-key", "mine"]] });
    expect(elsewhere.headers).toEqual([["x-key", "mine"]]);
  }); // prettier-ignore

  it("never looks into what it put in, and takes the longest placeholder", async () => {
    const longer = secretOf({ name: "LONGER", placeholder: "ph-abcdefgh-2", value: "two ph-abcdefgh" });
    expect((await sent([secret, longer], { headers: [["A", "ph-abcdefgh-2 ph-abcdefgh"]] })).headers).toEqual([
      ["A", "two ph-abcdefgh real value"],
    ]);
    const passing = { ...longer, allowedHosts: [], elsewhere: "pass" as const };
    expect((await sent([secret, passing], { headers: [["A", "ph-abcdefgh-2 ph-abcdefgh"]] })).headers).toEqual([
      ["A", "ph-abcdefgh-2 real value"],
    ]);
  });

  it.each(["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "a\x7fb"])(
    "never has a value that would begin another field: %j",
    async (value) => {
      for (const headers of [[["A", "ph-abcdefgh"]], [["Authorization", basic("u:ph-abcdefgh")]]] as Fields[]) {
        await expect(sent([{ ...secret, value }], { headers })).rejects.toThrow(
          /its value has a line break or another control character/,
        );
      }
      const adding = { ...secret, value, injectHeader: { name: "X-Key", value: "ph-abcdefgh" } };
      await expect(sent([adding], {})).rejects.toThrow(/line break/);
      expect((await sent([{ ...secret, value }], { target: "/?a=ph-abcdefgh" })).target).not.toMatch(/[\r\n\0\x7f]/);
    },
  );

  it.each(["a\r\nX: y", "a\n", "\0"])(
    "is refused where a field of the client has more than one line: %j",
    async (value) => {
      await expect(sent([secret], { headers: [["A", value]] })).rejects.toMatchObject({
        name: "UnreadableContent",
        side: "client",
      });
    },
  );

  it("is refused where values make it too large", async () => {
    const long = { ...secret, value: "v".repeat(60_000) };
    await expect(sent([long], { headers: [["A", "ph-abcdefgh".repeat(5)]] })).rejects.toThrow(
      /fields of more than 262144 bytes/,
    );
  });

  it.each<[string, Partial<Secret>, Partial<RequestHead>, RegExp]>([
    ["a host that it is not for", {}, { host: "api.example.com.evil.org" }, /it is for api\.example\.com, not for api\.example\.com\.evil\.org; add the host/],
    ["the name above a wildcard", { allowedHosts: ["*.example.com"] }, { host: "example.com" }, /it is for \*\.example\.com, not for/],
    ["no host at all", { allowedHosts: [] }, {}, /it is for no host/],
    ["a request without TLS", {}, { secure: false }, /not encrypted; use https, or set its allow_plaintext/],
    ["another method", { methods: ["GET"] }, { method: "DELETE" }, /for the methods GET only/],
    ["another path", { allowedPaths: ["/v1"] }, { target: "/v10" }, /for the paths \/v1 only/],
    ["a path that climbs", { allowedPaths: ["/v1/"] }, { target: "/v1/../admin" }, /for the paths/],
    ["a path that climbs in disguise", { allowedPaths: ["/v1"] }, { target: "/v1/%2e%2e/admin" }, /for the paths/],
    ["one that climbs over an encoded slash", { allowedPaths: ["/v1"] }, { target: "/v1/..%2fadmin" }, /for the paths/],
    ["one that climbs when decoded twice", { allowedPaths: ["/v1"] }, { target: "/v1/%252e%252e/admin" }, /for the paths/],
    ["one that climbs as some servers read it", { allowedPaths: ["/v1"] }, { target: "/v1/..;x/admin" }, /for the paths/],
    ["one that climbs over a backslash", { allowedPaths: ["/v1"] }, { target: "/v1/..\\admin" }, /for the paths/],
    ["a field, where it may not stand in one", { locations: ["body"] }, {}, /may not stand in header fields; add "header" to its locations/],
  ])("is refused with a placeholder on its way to %s", async (_, rule, head, message) => {
    const headers: Fields = [["A", "ph-abcdefgh"]];
    const error = await sent([{ ...secret, ...rule }], { ...head, headers }).then(
        () => new Error("sent"),
        (reason: Error) => reason,
      );
    expect(error).toMatchObject({ name: "SecretRefusal", secret: "TOKEN", where: "header", message });
    expect(error.message).not.toContain("real value");
    const passed = await sent([{ ...secret, ...rule, elsewhere: "pass" }], { ...head, headers });
    expect([passed.headers, passed.uses]).toEqual([headers, []]);
    // the same without the placeholder, and to where it may go
    expect((await sent([{ ...secret, ...rule }], { ...head, headers: [] })).headers).toEqual([]);
    expect((await sent([secret], { headers })).headers).toEqual([["A", "real value"]]);
  }); // prettier-ignore

  it.each<[Partial<Secret>, Partial<RequestHead>]>([
    [{ allowedHosts: ["*.example.com"] }, { host: "a.b.example.com" }],
    [{ allowPlaintext: true }, { secure: false }],
    [{ allowedPaths: ["/v1"] }, { target: "/v1" }],
    [{ allowedPaths: ["/v1"] }, { target: "/v1?x=/../y" }],
    [{ allowedPaths: ["/v1/"] }, { target: "/v1/x..y/.z" }],
    [{ methods: ["POST", "PUT"] }, {}],
  ])("has values where they may go: %j, %j", async (rule, head) => {
    expect((await sent([{ ...secret, ...rule }], { ...head, headers: [["A", "ph-abcdefgh"]] })).headers).toEqual([
      ["A", "real value"],
    ]);
  });

  it("has in each field what replacing in it gives, and as many fields as it had", () => {
    const secrets = [secretOf({ name: "A", placeholder: "ph-aaaaa", value: "é ph-aaaaab" }), secretOf({ name: "B", placeholder: "ph-aaaaab", value: "ph-" })];
    const patterns = secrets.map(({ placeholder, value }) => ({ needle: new Needle(Buffer.from(placeholder)), put: Buffer.from(value) }));
    const part = fc.constantFrom("ph-aaaaa", "ph-aaaaab", "ph-", "b", " ", "\xe9", ":");
    const value = fc.array(part, { maxLength: 6 }).map((parts) => parts.join(""));
    const name = fc.constantFrom("A", "Cookie", "X-Long-Name", "authorization");
    fuzz(
      fc.property(fc.array(fc.tuple(name, value, fc.boolean()), { maxLength: 6 }), (given) => {
        const encode = (one: string, text: string, encoded: boolean): string =>
          encoded && one === "authorization" && text !== "" ? `Basic ${Buffer.from(text, "latin1").toString("base64")}` : text;
        const fields = given.map(([one, text, encoded]) => [one, encode(one, text, encoded)] as [string, string]);
        const expected = given.map(([one, text, encoded]) => [one, encode(one, naive(Buffer.from(text, "latin1"), patterns, "plain").toString("latin1"), encoded)]);
        expect(putIntoFields(fields, grantsOf(secrets), []).fields).toEqual(expected);
      }),
      1_000,
    );
  }); // prettier-ignore

  it("has in its path and query what reading them gives, and nothing that ends them", () => {
    const secrets = [secretOf({ placeholder: "ph-aa~aa", value: "/?#&= %\r\n" })];
    const part = fc.constantFrom("ph-aa~aa", "ph-aa%7Eaa", "%70h-aa%7eaa", "ph-", "/", "&", "=", "%", "a");
    const text = fc.array(part, { maxLength: 6 }).map((parts) => parts.join(""));
    fuzz(
      fc.property(text, text, (path, query) => {
        const put = putIntoTarget(`/${path}?${query}`, grantsOf(secrets));
        expect(put).toMatch(/^\/[^?#\s]*\?[^?#\s]*$/);
        const read = (all: string): string => all.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
        const expected = `/${read(path)}?${read(query)}`.replaceAll("ph-aa~aa", "/?#&= %\r\n");
        expect(read(put)).toBe(expected);
      }),
      1_000,
    );
  }); // prettier-ignore
});
