import { createSecureServer, type Http2Server, type ServerHttp2Stream, type IncomingHttpHeaders } from "node:http2";
import { once } from "node:events";
import { Client, Metadata, credentials, status, type ServiceError } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { alice, first } from "./testing/proxy-bed.js";
import {
  makeSecretBed,
  placeholder,
  proxyAuthority,
  secret,
  serverContext,
  value,
  type SecretBed,
} from "./testing/secret-bed.js";

let bed: SecretBed;
let client: Client;
/** what the server got as a token with each call */
let tokens: unknown[];
beforeEach(async () => {
  tokens = [];
  bed = await makeSecretBed();
  await bed.serve(first, server());
  // it connects from where it likes
  bed.clients.set("127.0.0.1", { ...bed.clients.get(alice)!, address: "127.0.0.1" });
  client = new Client(`127.0.0.1:${bed.tlsPort}`, credentials.createSsl(Buffer.from(proxyAuthority.certificatePem)), {
    "grpc.ssl_target_name_override": "a.test",
    "grpc.default_authority": "a.test",
    "grpc.enable_http_proxy": 0,
  });
});
afterEach(async () => {
  client.close();
  await bed[Symbol.asyncDispose]();
});

/** A message of gRPC. Source: its specification over HTTP/2, "Length-Prefixed-Message" */
function message(text: string): Buffer {
  const body = Buffer.from(text);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

/** Calls `each` with each message that comes, then `end`. */
function messages(stream: ServerHttp2Stream, each: (text: string) => void, end: () => void): void {
  let bytes: Buffer = Buffer.alloc(0);
  stream.on("data", (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt32BE(1)) {
      const length = bytes.readUInt32BE(1);
      each(bytes.subarray(5, 5 + length).toString());
      bytes = bytes.subarray(5 + length);
    }
  });
  stream.on("end", end);
}

/** By hand, so that what it gets and sends is what stands here. */
function server(): Http2Server {
  const made = createSecureServer({ SNICallback: (_, done) => done(null, serverContext("a.test")) });
  const answer = { ":status": 200, "content-type": "application/grpc" };
  made.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    tokens.push(headers.authorization);
    stream.on("error", () => undefined);
    if (headers[":path"] === "/t/Fail") {
      stream.respond({ ...answer, "grpc-status": "7", "grpc-message": `no: ${value}` }, { endStream: true });
      return;
    }
    stream.respond(answer, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0", "x-sum": `after ${value}` }));
    const heard: string[] = [];
    messages(
      stream,
      (text) => {
        heard.push(text);
        if (headers[":path"] === "/t/Chat") stream.write(message(`heard ${text}`));
      },
      () => {
        if (headers[":path"] === "/t/Many")
          for (let n = 0; n < 100; n += 1) stream.write(message(`${heard.join()} ${n}`));
        else if (headers[":path"] !== "/t/Chat") stream.write(message(`${heard.join()} of ${headers["te"]}`));
        stream.end();
      },
    );
  });
  return made;
}

const write = (text: string): Buffer => Buffer.from(text);
const read = (bytes: Buffer): string => bytes.toString();
function metadata(): Metadata {
  const made = new Metadata();
  made.set("authorization", `Bearer ${placeholder}`);
  return made;
}

describe("gRPC to a host that a secret is for", () => {
  it("answers one message with one, and trailers", async () => {
    const trailers: string[] = [];
    const answer = await new Promise<string | undefined>((resolve, reject) => {
      const call = client.makeUnaryRequest("/t/One", write, read, "hello", metadata(), (error, text) =>
        error === null ? resolve(text) : reject(error),
      );
      call.on("status", (end) => trailers.push(String(end.metadata.get("x-sum")[0])));
    });
    expect(answer).toBe("hello of trailers");
    expect(tokens).toEqual([`Bearer ${value}`]);
    await expect.poll(() => trailers).toEqual([`after ${placeholder}`]);
  });

  it("tells of a failure that comes without a message, and not the value", async () => {
    const error = await new Promise<ServiceError | null>((resolve) =>
      client.makeUnaryRequest("/t/Fail", write, read, "hello", metadata(), resolve),
    );
    expect(error).toMatchObject({ code: status.PERMISSION_DENIED, details: `no: ${placeholder}` });
  });

  it("streams many messages down", async () => {
    const got: string[] = [];
    const call = client.makeServerStreamRequest("/t/Many", write, read, "go", metadata());
    call.on("data", (text: string) => got.push(text));
    await once(call, "end");
    expect(got).toEqual(Array.from({ length: 100 }, (_, n) => `go ${n}`));
  });

  it("streams many messages up", async () => {
    const answer = new Promise<string | undefined>((resolve, reject) => {
      const call = client.makeClientStreamRequest("/t/Sum", write, read, metadata(), (error, text) =>
        error === null ? resolve(text) : reject(error),
      );
      for (let n = 0; n < 100; n += 1) call.write(String(n));
      call.end();
    });
    expect(await answer).toBe(`${Array.from({ length: 100 }, (_, n) => n).join()} of trailers`);
  });

  it("streams both ways at once, each message as it comes", async () => {
    const call = client.makeBidiStreamRequest("/t/Chat", write, read, metadata());
    for (let n = 0; n < 20; n += 1) {
      const next = once(call, "data");
      call.write(`round ${n}`);
      expect(await next).toEqual([`heard round ${n}`]);
    }
    const end = once(call, "status");
    call.resume().end();
    expect(await end).toMatchObject([{ code: status.OK }]);
  });

  it("with a placeholder where it may not stand fails, and is audited", async () => {
    bed.grant("127.0.0.1", [secret({ locations: ["header"] })]);
    const error = await new Promise<ServiceError | null>((resolve) =>
      client.makeUnaryRequest("/t/One", write, read, `with ${placeholder}`, metadata(), resolve),
    );
    expect(error?.code).not.toBe(status.OK);
    expect(bed.uses.at(-1)).toMatchObject({ secret: "TOKEN", allowed: false, locations: ["body"] });
  });
});
