import { describe, expect, it } from "vitest";
import { parseChallenge, readToken, tokenUrl } from "./registry-auth.js";

describe("What a registry wants", () => {
  it.each([
    ['Bearer realm="https://a/t",service="s",scope="x"', { scheme: "bearer", realm: "https://a/t", service: "s" }],
    ["bearer service=s , realm=https://a/t", { scheme: "bearer", realm: "https://a/t", service: "s" }],
    ['Bearer realm="https://a/t"', { scheme: "bearer", realm: "https://a/t", service: null }],
    ['Basic realm="x"', { scheme: "basic" }],
    ["BASIC", { scheme: "basic" }],
    ["Bearer", null],
    ["Bearer service=x", null],
    ["Negotiate", null],
    ["", null],
    [`Bearer realm="${"x".repeat(5_000)}"`, null],
  ])("is read from %j", (header, challenge) => {
    expect(parseChallenge(header)).toEqual(challenge);
  });

  it("is a token from an address, which must be one, without a password in it", () => {
    const url = (realm: string): string => tokenUrl({ realm, service: "a b" }, "team/image").href;
    expect(url("https://h/t?x=1")).toBe("https://h/t?x=1&service=a+b&scope=repository%3Ateam%2Fimage%3Apull");
    expect(() => url("/token")).toThrow(RangeError);
    expect(() => url("https://u:p@h/t")).toThrow(RangeError);
  });
});

describe("A token", () => {
  it("is read from either field", () => {
    expect(readToken(Buffer.from('{"token":"a"}'))).toBe("a");
    expect(readToken(Buffer.from('{"access_token":"b"}'))).toBe("b");
  });

  it.each(["", "null", "[]", "{}", '{"token":""}', '{"token":1}', '{"token":"a b"}', '{"token":"a\\nb"}'])(
    "is not in %j",
    (text) => expect(() => readToken(Buffer.from(text))).toThrow(RangeError),
  );
});
