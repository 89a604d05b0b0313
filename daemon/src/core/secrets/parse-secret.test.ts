import { describe, expect, it } from "vitest";
import { parseSecret, writeSecret } from "./parse-secret.js";
import { completeSecrets } from "./secret-set.js";

const canary = "canary-7b1f0c93aa52";
const plain = { value: canary, placeholder: "placeholder-1", allowed_hosts: ["api.example.com"] };

/** What it says, which never has the value in it. */
function refusal(name: string, written: unknown): string {
  try {
    parseSecret(name, written);
  } catch (error) {
    const { message, code, details } = error as { message: string; code: string; details: unknown };
    expect(code).toBe("invalid_request");
    expect(JSON.stringify([message, details])).not.toContain("canary");
    return message;
  }
  throw new Error("it was not refused");
}

describe("parseSecret()", () => {
  it("takes the form of the contract, and is closed where nothing is said", () => {
    expect(parseSecret("API_KEY", plain)).toEqual({
      name: "API_KEY",
      placeholder: "placeholder-1",
      value: canary,
      allowedHosts: ["api.example.com"],
      allowedPaths: null,
      methods: null,
      locations: ["header", "basic"],
      injectHeader: null,
      allowPlaintext: false,
      elsewhere: "refuse",
      sigv4: null,
      oauth2: null,
    });
  });

  it("brings hosts and methods into one form, each once", () => {
    const { allowedHosts, methods } = parseSecret("A", {
      ...plain,
      allowed_hosts: ["API.Example.COM.", "*.Bücher.example", "api.example.com"],
      methods: ["get", "GET", "Post"],
    });
    expect(allowedHosts).toEqual(["api.example.com", "*.xn--bcher-kva.example"]);
    expect(methods).toEqual(["GET", "POST"]);
  });

  it.each([
    ["1A", plain, /its name must be 1 to 64/],
    ["A-B", plain, /its name must be/],
    ["A".repeat(65), plain, /its name must be/],
    ["PATH", plain, /its name "PATH" is that of an environment variable which has another meaning/],
    ["https_proxy", plain, /another meaning/],
    ["LD_PRELOAD", plain, /another meaning/],
    ["__proto__", plain, /another meaning/],
    ["A", null, /Cannot use secret "A": it must be an object/],
    ["A", [canary], /it must be an object/],
    ["A", canary, /it must be an object/],
    ["A", { ...plain, value: 5 }, /value must be a text/],
    ["A", { ...plain, value: "" }, /value is required/],
    ["A", { ...plain, value: undefined }, /value is required/],
    ["A", { ...plain, value: "abc" }, /value must be 4 to 65536 bytes/],
    ["A", { ...plain, value: "x".repeat(65_537) }, /value must be 4 to 65536 bytes/],
    ["A", { ...plain, value: `${canary}\ud800` }, /value must be valid UTF-8/],
    ["A", { ...plain, value: `${canary}\0`, locations: ["body"] }, /value must not contain a zero/],
    ["A", { ...plain, value: `${canary}\r\nX: y` }, /value has a line break/],
    ["A", { ...plain, placeholder: "short" }, /placeholder must be 8 to 4096 characters/],
    ["A", { ...plain, placeholder: "has a space" }, /placeholder must be printable ASCII/],
    ["A", { ...plain, placeholder: 'has"quotes' }, /placeholder must be printable ASCII/],
    ["A", { ...plain, placeholder: "back\\slash" }, /placeholder must be printable ASCII/],
    ["A", { value: canary }, /allowed_hosts is required/],
    ["A", { ...plain, allowed_hosts: "api.example.com" }, /allowed_hosts must be a list of texts/],
    ["A", { ...plain, allowed_hosts: ["api.example.com:443"] }, /allowed_hosts has, at 1, no host name/],
    ["A", { ...plain, allowed_hosts: ["a.example", "https://b.example"] }, /allowed_hosts has, at 2, no host name/],
    ["A", { ...plain, allowed_hosts: ["127.0.0.1"] }, /no host name/],
    ["A", { ...plain, allowed_hosts: ["0x7f.1"] }, /no host name/],
    ["A", { ...plain, allowed_hosts: ["*"] }, /no host name/],
    ["A", { ...plain, allowed_hosts: ["*.com"] }, /a wildcard for a whole top-level domain/],
    ["A", { ...plain, allowed_hosts: ["a.*.example"] }, /no host name/],
    ["A", { ...plain, allowed_paths: [] }, /allowed_paths must be 1 to 64/],
    ["A", { ...plain, allowed_paths: ["v1"] }, /allowed_paths must be prefixes/],
    ["A", { ...plain, allowed_paths: ["/v1?x"] }, /allowed_paths must be prefixes/],
    ["A", { ...plain, allowed_paths: ["/v1/../admin"] }, /allowed_paths must be prefixes/],
    ["A", { ...plain, methods: [] }, /methods must be 1 to 16/],
    ["A", { ...plain, methods: ["CONNECT"] }, /methods must be methods of HTTP/],
    ["A", { ...plain, methods: ["GE T"] }, /methods must be methods of HTTP/],
    ["A", { ...plain, locations: ["cookie"] }, /locations must be among header, basic/],
    ["A", { ...plain, locations: [] }, /locations must not be empty/],
    ["A", { ...plain, inject_header: { name: "X-Key" } }, /inject_header\.value is required/],
    [
      "A",
      { ...plain, inject_header: { name: "Host", value: "x" } },
      /inject_header\.name must not be that of a header/,
    ],
    ["A", { ...plain, inject_header: { name: "X Key", value: "x" } }, /inject_header\.name must be a header's name/],
    ["A", { ...plain, inject_header: { name: "X-Key", value: "a\r\nb" } }, /inject_header\.value must be printable/],
    ["A", { ...plain, inject_header: { name: "X", value: "y", on: 1 } }, /inject_header\.on is not one of a secret/],
    ["A", { ...plain, allow_plaintext: "yes" }, /allow_plaintext must be true or false/],
    ["A", { ...plain, elsewhere: "ignore" }, /elsewhere must be refuse or pass/],
    ["A", { ...plain, sigv4: {} }, /sigv4\.secret_access_key is required/],
    ["A", { ...plain, allowedhosts: [] }, /allowedhosts is not one of a secret/],
    ["A", { ...plain, [canary]: 1 }, /a field is not one of a secret/],
    [
      "A",
      { ...plain, oauth2: { token_url: "https://a.example/t", client_id: "c", client_secret: "s" } },
      /value must be absent/,
    ],
    ["A", oauth2({ token_url: "http://a.example/t" }), /oauth2\.token_url must be an https URL/],
    ["A", oauth2({ token_url: "https://user:canary@a.example/t" }), /oauth2\.token_url must be an https URL/],
    ["A", oauth2({ client_id: undefined }), /oauth2\.client_id is required/],
    ["A", oauth2({ client_secret: undefined }), /oauth2\.client_secret is required/],
    ["A", oauth2({ client_secret: "canary\n" }), /oauth2\.client_secret must be printable/],
  ])("refuses %s %j with the secret and the field, and without the value", (name, written, said) => {
    expect(refusal(name, written)).toMatch(said);
  });

  it("lets a value with line breaks go where there are any", () => {
    expect(parseSecret("A", { ...plain, value: "a\nbcd", locations: ["body"] }).value).toBe("a\nbcd");
  });
});

function oauth2(more: Record<string, unknown>): Record<string, unknown> {
  const grant = { token_url: "https://a.example/token", client_id: "c", client_secret: "canary", ...more };
  return { allowed_hosts: ["api.example.com"], oauth2: grant };
}

describe("writeSecret()", () => {
  it.each([
    plain,
    { ...plain, allowed_paths: ["/v1"], methods: ["GET"], locations: ["query", "body"], allow_plaintext: true },
    { ...plain, elsewhere: "pass", inject_header: { name: "X-Key", value: "key placeholder-1" } },
    { ...oauth2({ refresh_token: "r", scope: "a b" }), placeholder: "placeholder-1" },
  ])("writes what is read as the same secret: %j", (written) => {
    const [secret] = completeSecrets([parseSecret("A", written)]).secrets;
    expect(parseSecret("A", writeSecret(secret!))).toEqual(secret);
    expect(writeSecret(secret!)).toEqual(written);
  });
});

describe("completeSecrets()", () => {
  const secret = (name: string, more: object = {}) =>
    parseSecret(name, { value: `value-of-${name}`, allowed_hosts: [], ...more });

  it("makes placeholders where there are none, none of which is in another", () => {
    const { secrets, made } = completeSecrets([secret("B"), secret("A", { placeholder: "placeholder-of-A" })]);
    expect(made).toBe(true);
    expect(secrets.map(({ name }) => name)).toEqual(["A", "B"]);
    expect(secrets[1]?.placeholder).toMatch(/^[a-zA-Z]{5}-[a-zA-Z]{2}-[a-zA-Z]+$/);
    expect(completeSecrets(secrets)).toEqual({ secrets, made: false });
  });

  it("puts the placeholder into the header that is injected", () => {
    const injected = secret("A", { inject_header: { name: "X", value: "Key {placeholder}" } });
    const [found] = completeSecrets([injected]).secrets;
    expect(found?.injectHeader?.value).toBe(`Key ${found?.placeholder ?? ""}`);
  });

  it.each([
    [
      [{ placeholder: "same-placeholder" }, { placeholder: "same-placeholder" }],
      /"(A|B)": placeholder is that of "(A|B)"/,
    ],
    [
      [{ placeholder: "placeholder" }, { placeholder: "xx-placeholder-xx" }],
      /"A": placeholder is that of "B" or in it/,
    ],
    [
      [{ placeholder: "xx-placeholder-xx" }, { placeholder: "placeholder" }],
      /"B": placeholder is that of "A" or in it/,
    ],
    [[{ placeholder: "is-value-of-B-no-secret" }, {}], /"A": placeholder contains the value of "B"/],
    [[{ placeholder: "value-of-A" }, {}], /"A": placeholder contains the value of "A"/],
    [[{ placeholder: "value-of" }, {}], /"A": value contains its placeholder/],
    [
      [{ inject_header: { name: "X", value: "nothing" } }, {}],
      /"A": inject_header\.value must contain the placeholder/,
    ],
    [[{ sigv4: { secret_access_key: "A" } }, {}], /sigv4\.secret_access_key must be the name of another/],
    [[{ sigv4: { secret_access_key: "C" } }, {}], /there is none of that name/],
    [
      [{ sigv4: { secret_access_key: "B", session_token: "D" } }, {}],
      /sigv4\.session_token must be the name of a secret/,
    ],
  ])("refuses what does not go together: %j", (pair, said) => {
    const written = pair.map((more, at) => secret("AB"[at]!, more));
    expect(() => completeSecrets(written)).toThrow(said);
  });
});
