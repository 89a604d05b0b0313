import { createHash } from "node:crypto";
import * as http from "node:http";
import { SignatureV4 } from "@smithy/signature-v4";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { S3Server } from "../../support/s3/s3-server.js";
import { Sha256 } from "../../support/sha256.js";

/** A request to be signed as it is here, and to be sent with what is changed then. */
interface Raw {
  readonly method?: string;
  readonly path?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** what is other than was signed */
  readonly sent?: {
    readonly path?: string;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: string;
  };
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

describe("what the tests' S3 wants of a signature", () => {
  let server: S3Server;
  let signer: SignatureV4;

  beforeAll(async () => {
    server = await S3Server.start();
    signer = signerOf({});
  });
  afterAll(() => server[Symbol.asyncDispose]());

  const signerOf = (more: { region?: string; service?: string }): SignatureV4 => {
    const common = { sha256: Sha256, uriEscapePath: false, applyChecksum: true };
    return new SignatureV4({
      ...common,
      service: "s3",
      region: server.region,
      credentials: server.credentials,
      ...more,
    });
  };

  /** Returns the status and the code of the refusal, if it is one. */
  const send = async (raw: Raw, by = signer): Promise<string> => {
    const { method = "PUT", path = `/${server.bucket}/raw`, query = {}, body = "" } = raw;
    const given = {
      host: `127.0.0.1:${server.port}`,
      "content-length": String(Buffer.byteLength(body)),
      ...raw.headers,
    };
    const request = { method, protocol: "http:", hostname: "", path, query, headers: given, body };
    const { headers } = await by.sign(request);
    return transmit(
      method,
      raw.sent?.path ?? pathOf(path, query),
      { ...headers, ...raw.sent?.headers },
      raw.sent?.body ?? body,
    );
  };

  const transmit = (method: string, path: string, headers: http.OutgoingHttpHeaders, body: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const request = http.request(
        { host: "127.0.0.1", port: server.port, method, path, headers, agent: false },
        (answer) => {
          let text = "";
          answer.on("data", (piece: Buffer) => (text += piece.toString()));
          answer.on("end", () =>
            resolve(`${answer.statusCode} ${/<Code>(.*)<\/Code>/.exec(text)?.[1] ?? text}`.trim()),
          );
        },
      );
      request.on("error", reject);
      request.end(body);
    });

  const pathOf = (path: string, query: Readonly<Record<string, string>>): string => {
    const pairs = Object.entries(query).map((pair) => pair.map(encodeURIComponent).join("="));
    return pairs.length === 0 ? path : `${path}?${pairs.join("&")}`;
  };

  it("takes what is signed rightly", async () => {
    expect(await send({ body: "text" })).toBe("200");
    expect(await send({ method: "GET" })).toBe("200 text");
    expect(
      await send({ method: "GET", path: `/${server.bucket}`, query: { "list-type": "2", prefix: "a+b c/ä" } }),
    ).toMatch(/^200/);
  });

  it("refuses a body that is another than was signed", async () => {
    expect(await send({ body: "text", sent: { body: "TEXT" } })).toBe("400 XAmzContentSHA256Mismatch");
    expect(await send({ method: "GET" })).toBe("200 text");
  });

  it("refuses a method, a key, a query or a header that is another than was signed", async () => {
    expect(await send({ body: "x", sent: { path: `/${server.bucket}/other` } })).toBe("403 SignatureDoesNotMatch");
    const listing = { method: "GET", path: `/${server.bucket}`, query: { "list-type": "2", prefix: "a" } };
    const sent = { path: pathOf(listing.path, { ...listing.query, prefix: "b" }) };
    expect(await send({ ...listing, sent })).toBe("403 SignatureDoesNotMatch");
    const condition = { "if-none-match": "*" };
    expect(await send({ headers: condition, sent: { headers: { "if-none-match": '"etag"' } } })).toBe(
      "403 SignatureDoesNotMatch",
    );
  });

  it("refuses a header of AWS's that was not signed", async () => {
    expect(await send({ body: "x", sent: { headers: { "x-amz-meta-more": "1" } } })).toBe("403 AccessDenied");
  });

  it("refuses another region, another service, and who does not sign at all", async () => {
    expect(await send({}, signerOf({ region: "us-east-1" }))).toBe("400 AuthorizationHeaderMalformed");
    expect(await send({}, signerOf({ service: "sts" }))).toBe("400 AuthorizationHeaderMalformed");
    expect(await transmit("GET", `/${server.bucket}/raw`, {}, "")).toBe("403 AccessDenied");
    expect(await transmit("GET", `/${server.bucket}/raw`, { authorization: "Basic eDp5" }, "")).toBe(
      "400 AuthorizationHeaderMalformed",
    );
  });

  it("refuses a hash that is none, and an MD5 that is another's", async () => {
    const any = { "x-amz-content-sha256": "STREAMING-SOMETHING" };
    expect(await send({ headers: any })).toBe("400 InvalidRequest");
    const md5 = createHash("md5").update("other").digest("base64");
    expect(await send({ body: "text", headers: { "content-md5": md5 } })).toBe("400 BadDigest");
    const unsigned = { "x-amz-content-sha256": "UNSIGNED-PAYLOAD" };
    expect(await send({ body: "text", headers: unsigned, sent: { body: "TEXT" } })).toBe("200");
  });

  it("refuses what it does not know", async () => {
    expect(await send({ method: "GET", query: { acl: "" } })).toBe("501 NotImplemented");
    expect(await send({ headers: { "x-amz-copy-source": "/a/b" } })).toBe("501 NotImplemented");
    expect(await send({ headers: { "if-none-match": '"some"' } })).toBe("501 NotImplemented");
    expect(await send({ headers: { "x-amz-checksum-crc64nvme": "AAAAAAAAAAA=" } })).toBe("501 NotImplemented");
  });

  describe("whose chunks are signed each", () => {
    const kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
    const checksum = createHash("sha256").update("one two").digest("base64");

    /** Two chunks and a trailer, signed; `change` may spoil the body. */
    const sendChunks = async (change: (body: string) => string = (body) => body): Promise<string> => {
      const path = `/${server.bucket}/chunked`;
      const signingDate = new Date();
      const time = signingDate.toISOString().replaceAll(/[-:]|\.\d+/g, "");
      const scope = `${time.slice(0, 8)}/${server.region}/s3/aws4_request`;
      const given = {
        host: `127.0.0.1:${server.port}`,
        "x-amz-content-sha256": kind,
        "x-amz-decoded-content-length": "7",
        "x-amz-trailer": "x-amz-checksum-sha256",
        "content-encoding": "aws-chunked",
      };
      const request = { method: "PUT", protocol: "http:", hostname: "", path, query: {}, headers: given };
      const { headers } = await signer.sign(request, { signingDate });
      let previous = /Signature=(.*)$/.exec(headers["authorization"] ?? "")?.[1] ?? "";
      const sign = async (what: string, ...hashes: readonly string[]): Promise<string> => {
        const text = [`AWS4-HMAC-SHA256-${what}`, time, scope, previous, ...hashes].join("\n");
        return (previous = await signer.sign(text, { signingDate }));
      };
      let body = "";
      for (const chunk of ["one ", "two", ""]) {
        const signature = await sign("PAYLOAD", sha256(""), sha256(chunk));
        body += `${chunk.length.toString(16)};chunk-signature=${signature}\r\n${chunk}${chunk === "" ? "" : "\r\n"}`;
      }
      const trailer = `x-amz-checksum-sha256:${checksum}`;
      body += `${trailer}\r\nx-amz-trailer-signature:${await sign("TRAILER", sha256(`${trailer}\n`))}\r\n\r\n`;
      const sent = change(body);
      return transmit("PUT", path, { ...headers, "content-length": Buffer.byteLength(sent) }, sent);
    };

    it("takes them", async () => {
      expect(await sendChunks()).toBe("200");
      expect(await send({ method: "GET", path: `/${server.bucket}/chunked` })).toBe("200 one two");
    });

    it.each([
      ["a chunk", (body: string) => body.replace("two", "TWO"), "403 SignatureDoesNotMatch"],
      ["the size of a chunk", (body: string) => body.replace("4;", "3;"), "403 SignatureDoesNotMatch"],
      ["the trailer", (body: string) => body.replace(/sha256:./, "sha256:="), "403 SignatureDoesNotMatch"],
      ["the end", (body: string) => body.slice(0, body.indexOf("\r\n0;") + 2), "400 IncompleteBody"],
      ["something behind the end", (body: string) => `${body}more`, "400 InvalidRequest"],
      ["the order of the chunks", swapped, "403 SignatureDoesNotMatch"],
    ])("refuses them when %s is another", async (_what, change, refusal) => {
      expect(await sendChunks(change)).toBe(refusal);
      expect(await send({ method: "GET", path: `/${server.bucket}/chunked` })).toBe("200 one two");
    });

    function swapped(body: string): string {
      return body.replace(/^(4;[^\r]*\r\none \r\n)(3;[^\r]*\r\ntwo\r\n)/, "$2$1");
    }
  });
});
