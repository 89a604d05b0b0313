import { createHash, createHmac } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { SignatureV4 } from "@smithy/signature-v4";
import { describe, expect, it } from "vitest";
import type { Secret } from "../../../core/secrets/secret.js";
import { SecretSet } from "../secret-set.js";
import { headOf, secretOf } from "../testing/secrets.js";

/** What the signer of AWS's own SDK hashes with. */
class Sha256 {
  readonly #hash;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    const bytes = (data: string | ArrayBuffer | ArrayBufferView): Buffer =>
      typeof data === "string" ? Buffer.from(data) : ArrayBuffer.isView(data) ? Buffer.from(data.buffer, data.byteOffset, data.byteLength) : Buffer.from(data); // prettier-ignore
    this.#hash = secret === undefined ? createHash("sha256") : createHmac("sha256", bytes(secret));
  }

  update(data: Uint8Array): void {
    this.#hash.update(data);
  }

  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.#hash.digest());
  }

  reset(): void {}
}

const host = "bucket.s3.eu-central-1.amazonaws.com";
const fake = {
  accessKeyId: "AKIAPLACEHOLDER0000",
  secretAccessKey: "placeholder/of+the/secret+key000000000",
  sessionToken: "placeholder-of-token",
};
const real = {
  accessKeyId: "AKIAREAL11111111111",
  secretAccessKey: "real/secret+key/1111111111111111111111",
  sessionToken: "real+token/with==",
};
const signingDate = new Date("2026-03-01T10:20:30Z");

function aws(given: Partial<Secret> = {}): Secret[] {
  const common = { allowedHosts: ["*.amazonaws.com"], locations: ["header", "query", "body"] as const };
  return [
    secretOf({ ...common, name: "ID", placeholder: fake.accessKeyId, value: real.accessKeyId, sigv4: { secretAccessKey: "KEY", sessionToken: "SESSION" }, ...given }),
    secretOf({ ...common, name: "KEY", placeholder: fake.secretAccessKey, value: real.secretAccessKey }),
    secretOf({ ...common, name: "SESSION", placeholder: fake.sessionToken, value: real.sessionToken }),
    secretOf({ ...common, name: "OTHER", placeholder: "other-placeholder", value: "other-value-longer" }),
  ]; // prettier-ignore
}

function signer(credentials: typeof fake, service: string): SignatureV4 {
  return new SignatureV4({
    service,
    region: "eu-central-1",
    sha256: Sha256,
    credentials,
    uriEscapePath: service !== "s3",
    applyChecksum: service === "s3",
  });
}

interface Sample {
  readonly method: string;
  readonly path: string;
  readonly query?: Record<string, string | string[]>;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

function unsigned({ method, path, query = {}, headers = {}, body }: Sample) {
  return {
    method,
    protocol: "https:",
    hostname: host,
    path,
    query,
    headers: { host, ...headers },
    ...(body === undefined ? {} : { body }),
  };
}

function target(request: { path: string; query?: Record<string, string | string[] | null> }): string {
  const encode = (text: string): string =>
    encodeURIComponent(text).replaceAll(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  const query = Object.entries(request.query ?? {}).flatMap(([name, values]) =>
    [values ?? ""].flat().map((value) => `${encode(name)}=${encode(value)}`),
  );
  return query.length === 0 ? request.path : `${request.path}?${query.join("&")}`;
}

async function through(
  secrets: Secret[],
  request: {
    method: string;
    path: string;
    query?: Record<string, string | string[] | null>;
    headers: Record<string, string>;
  },
  body: string | undefined,
) {
  const head = headOf({
    method: request.method,
    host,
    target: target(request),
    headers: Object.entries(request.headers),
    hasBody: body !== undefined,
    contentLength: body === undefined ? null : Buffer.byteLength(body),
  });
  const substitution = SecretSet.compile(secrets).request(head);
  const outgoing = await substitution.send(body === undefined ? null : Readable.from([Buffer.from(body)]));
  return {
    ...outgoing,
    body: outgoing.body === null ? null : (await buffer(outgoing.body)).toString(),
    used: substitution.uses(),
  };
}

const samples: Readonly<Record<string, Sample>> = {
  "a plain one": { method: "GET", path: "/" },
  "one with odd characters in its path": { method: "GET", path: "/a%20b/c%2Bd/%C3%A9/x~y/%281%29" },
  "one with a query": {
    method: "GET",
    path: "/list",
    query: { "list-type": "2", prefix: "a b+c/é", "x-id": ["2", "1"], empty: "" },
  },
  "one with a body": { method: "POST", path: "/", headers: { "content-type": "application/json" }, body: '{"a":"b"}' },
  "one with blanks in its fields": {
    method: "PUT",
    path: "/o",
    headers: { "x-amz-meta-note": "  a   b  " },
    body: "text",
  },
};

describe("A request for AWS that is signed with placeholders", () => {
  describe.each(["s3", "dynamodb"])("to %s", (service) => {
    it.each(Object.entries(samples))(
      "is sent as AWS's own signer would sign it with the real key: %s",
      async (_, sample) => {
        const byClient = await signer(fake, service).sign(unsigned(sample), { signingDate });
        const result = await through(aws(), byClient, sample.body);
        const expected = await signer(real, service).sign(unsigned(sample), { signingDate });
        expect(Object.fromEntries(result.headers)).toMatchObject(expected.headers);
        expect(JSON.stringify(result)).not.toContain("placeholder");
        expect(result.used.map(({ secret }) => secret).toSorted()).toEqual(["ID", "KEY", "SESSION"]);
      },
    );
  });

  it("is signed for the body that it has once values are put into that", async () => {
    const sample = (word: string): Sample => ({
      method: "PUT",
      path: "/o",
      headers: { "content-type": "text/plain" },
      body: `a ${word}`,
    });
    const byClient = await signer(fake, "s3").sign(unsigned(sample("other-placeholder")), { signingDate });
    const result = await through(aws(), byClient, "a other-placeholder");
    const expected = await signer(real, "s3").sign(unsigned(sample("other-value-longer")), { signingDate });
    expect(result).toMatchObject({ body: "a other-value-longer", contentLength: 20 });
    expect(Object.fromEntries(result.headers)).toMatchObject(expected.headers);
  });

  it.each(["s3", "sts"])("may be a URL for %s", async (service) => {
    const sample: Sample = { method: "GET", path: "/a%20b", query: { x: "1 2" } };
    const options = { signingDate, expiresIn: 600 };
    const presign = async (keys: typeof fake) => {
      const request = unsigned(sample);
      // for storage, what the SDK says of a body that is not known
      if (service === "s3") Object.assign(request.headers, { "x-amz-content-sha256": "UNSIGNED-PAYLOAD" });
      return signer(keys, service).presign(request, {
        ...options,
        unhoistableHeaders: new Set(["x-amz-content-sha256"]),
      });
    };
    const byClient = await presign(fake);
    const result = await through(aws(), byClient, undefined);
    const expected = await presign(real);
    const query = Object.fromEntries(new URLSearchParams(result.target.split("?")[1]));
    expect(query).toEqual(expected.query);
  });

  it("has the session token added where the client has none", async () => {
    const { sessionToken: _, ...keys } = fake;
    const byClient = await signer(keys as typeof fake, "s3").sign(unsigned(samples["a plain one"]!), { signingDate });
    const result = await through(aws(), byClient, undefined);
    const expected = await signer(real, "s3").sign(unsigned(samples["a plain one"]!), { signingDate });
    expect(Object.fromEntries(result.headers)).toMatchObject(expected.headers);
  });

  it("may be signed with a key that is for no host by itself", async () => {
    const byClient = await signer(fake, "s3").sign(unsigned(samples["a plain one"]!), { signingDate });
    const secrets = aws().map((secret) => (secret.name === "KEY" ? { ...secret, allowedHosts: [] } : secret));
    const result = await through(secrets, byClient, undefined);
    const expected = await signer(real, "s3").sign(unsigned(samples["a plain one"]!), { signingDate });
    expect(Object.fromEntries(result.headers)).toMatchObject(expected.headers);
  });

  it("may have a body in chunks, each signed anew", async () => {
    const word = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    const sample: Sample = {
      method: "PUT",
      path: "/o",
      headers: { "x-amz-content-sha256": word, "content-encoding": "aws-chunked" },
    };
    const byClient = await signer(fake, "s3").sign(unsigned(sample), { signingDate });
    const wrong = "f".repeat(64);
    const result = await through(
      aws(),
      byClient,
      `5;chunk-signature=${wrong}\r\nhello\r\n0;chunk-signature=${wrong}\r\n\r\n`,
    );
    expect(Object.fromEntries(result.headers)).toMatchObject(
      (await signer(real, "s3").sign(unsigned(sample), { signingDate })).headers,
    );
    expect(result.body).toMatch(/^5;chunk-signature=\w{64}\r\nhello\r\n0;chunk-signature=\w{64}\r\n\r\n$/);
    expect(result.body).not.toContain(wrong);
    const hidden = `11;chunk-signature=${wrong}\r\nother-placeholder\r\n0;chunk-signature=${wrong}\r\n\r\n`;
    await expect(through(aws(), byClient as never, hidden)).rejects.toThrow(
      /chunks that are signed, into which nothing can be put/,
    );
  });

  it("is refused where its key is not granted, not for the host, or used in a way that cannot be signed anew", async () => {
    const byClient = await signer(fake, "s3").sign(unsigned(samples["a plain one"]!), { signingDate });
    const [id, key, ...rest] = aws();
    await expect(through([id!], byClient as never, undefined)).rejects.toThrow(
      /it needs the secret "SESSION", which is not granted/,
    );
    const elsewhere = { ...key!, allowedHosts: ["example.com"] };
    await expect(through([id!, elsewhere, ...rest], byClient as never, undefined)).rejects.toMatchObject({
      secret: "KEY",
      where: "signature",
    });
    const ecdsa = {
      ...byClient.headers,
      authorization: byClient.headers["authorization"]!.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
    };
    await expect(through(aws(), { ...byClient, headers: ecdsa }, undefined)).rejects.toThrow(/only AWS4-HMAC-SHA256/);
    const events = { ...byClient.headers, "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-EVENTS" };
    await expect(through(aws(), { ...byClient, headers: events }, undefined)).rejects.toThrow(/cannot be signed anew/);
  });

  it("is refused where its session token would begin another field", async () => {
    const { sessionToken: _, ...keys } = fake;
    const byClient = await signer(keys as typeof fake, "s3").sign(unsigned(samples["a plain one"]!), { signingDate });
    const secrets = aws().map((secret) => (secret.name === "SESSION" ? { ...secret, value: "a\r\nX: y" } : secret));
    await expect(through(secrets, byClient as never, undefined)).rejects.toMatchObject({ secret: "SESSION" });
  });

  it("is left alone where it is signed with a key that is no placeholder", async () => {
    const byClient = await signer({ ...fake, accessKeyId: "AKIAOWN" }, "s3").sign(
      unsigned({ method: "GET", path: "/" }),
      { signingDate },
    );
    const result = await through(aws(), byClient, undefined);
    expect(Object.fromEntries(result.headers)["authorization"]).toBe(byClient.headers["authorization"]);
  });
});
