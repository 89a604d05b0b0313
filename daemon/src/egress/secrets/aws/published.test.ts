import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, expect, it } from "vitest";
import { canonicalRequest } from "./canonical.js";
import { ChunkSigner } from "./chunk-signer.js";
import { emptyHash, sha256, SigningKey } from "./signing-key.js";

/** Key and requests of the examples in Amazon S3's and AWS's documentation of version 4 of the signature. */
const storage = { date: "20130524", region: "us-east-1", service: "s3" };
const dateTime = "20130524T000000Z";
const key = new SigningKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", storage, dateTime);

function signature(parts: Omit<Parameters<typeof canonicalRequest>[0], "service">): string {
  const request = canonicalRequest({ ...parts, service: "s3" });
  return key.sign("AWS4-HMAC-SHA256", [sha256(request)]);
}

const chunked = {
  method: "PUT",
  target: "/examplebucket/chunkObject.txt",
  signedHeaders: [
    "content-encoding",
    "content-length",
    "host",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-storage-class",
  ],
  headers: [
    ["Host", "s3.amazonaws.com"],
    ["x-amz-date", dateTime],
    ["x-amz-storage-class", "REDUCED_REDUNDANCY"],
    ["x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"],
    ["Content-Encoding", "aws-chunked"],
    ["x-amz-decoded-content-length", "66560"],
    ["Content-Length", "66824"],
  ] as [string, string][],
  payload: "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
};
const wrong = "0".repeat(64);

function chunks(trailers: string): Buffer {
  const line = (size: string): string => `${size};chunk-signature=${wrong}\r\n`;
  return Buffer.from(
    `${line("10000")}${"a".repeat(65_536)}\r\n${line("400")}${"a".repeat(1_024)}\r\n${line("0")}${trailers}\r\n`,
  );
}

async function signed(body: Buffer, signer: ChunkSigner, size = 1_000): Promise<string> {
  const pieces = Array.from({ length: Math.ceil(body.length / size) }, (_, index) =>
    body.subarray(index * size, (index + 1) * size),
  );
  return (await buffer(Readable.from(pieces).pipe(signer))).toString();
}

describe("The signatures that AWS publishes as examples", () => {
  it("come out for a request with fields", () => {
    const headers: [string, string][] = [
      ["Host", "examplebucket.s3.amazonaws.com"],
      ["Range", "bytes=0-9"],
      ["x-amz-content-sha256", emptyHash],
      ["x-amz-date", dateTime],
    ];
    const signedHeaders = ["host", "range", "x-amz-content-sha256", "x-amz-date"];
    const result = signature({ method: "GET", target: "/test.txt", signedHeaders, headers, payload: emptyHash });
    expect(result).toBe("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  });

  it("come out for a URL", () => {
    const target =
      "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request" +
      "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=to-be-left-out";
    const headers: [string, string][] = [["Host", "examplebucket.s3.amazonaws.com"]];
    const result = signature({ method: "GET", target, signedHeaders: ["host"], headers, payload: "UNSIGNED-PAYLOAD" });
    expect(result).toBe("aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
  });

  it("come out for a body in chunks, of which the length stays", async () => {
    const seed = signature(chunked);
    expect(seed).toBe("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");
    const body = chunks("");
    const result = await signed(body, new ChunkSigner(key, seed, false));
    expect(result).toHaveLength(body.length);
    expect(result.match(/chunk-signature=\w+/g)).toEqual([
      "chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
      "chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
      "chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ]);
  });

  it("come out for chunks with fields after them", async () => {
    const seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
    const body = chunks(`x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:${wrong}\r\n`);
    const result = await signed(body, new ChunkSigner(key, seed, true));
    expect(result).toHaveLength(body.length);
    expect(result.match(/signature[=:]\w+/g)).toEqual([
      "signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
      "signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
      "signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
      "signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
    ]);
  });

  it.each([
    ["ends early", chunks("").subarray(0, 66_000), /ends before its last chunk/],
    ["goes on after its end", Buffer.concat([chunks(""), Buffer.from("x")]), /goes on after its end/],
    ["has no signatures", Buffer.from("5\r\nhello\r\n0\r\n\r\n"), /without a size or a signature/],
    ["says another size", Buffer.from(`5;chunk-signature=${wrong}\r\nhello!!!`), /of another size than it says/],
    ["has too large a chunk", Buffer.from(`ffffffff;chunk-signature=${wrong}\r\n`), /of more than 4194304 bytes/],
    ["has an endless line", Buffer.from("5".repeat(9_000)), /a line that is too long/],
    ["has fields where none are told", chunks("a:b\r\n"), /fields that are none/],
  ])("are not made for a body that %s", async (_, body, error) => {
    await expect(signed(body, new ChunkSigner(key, wrong, false))).rejects.toThrow(error);
  });
});
