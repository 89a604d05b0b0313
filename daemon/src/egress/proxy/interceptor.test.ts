import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { createServer, type Socket } from "node:net";
import { createServer as createTlsServer, type SecureContext } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makePair } from "../../secrets/ca/authority-pair.js";
import { LeafIssuer } from "../tls/leaf-issuer.js";
import { alice, first } from "./testing/proxy-bed.js";
import {
  makeSecretBed,
  placeholder,
  proxyAuthority,
  secret,
  serverAuthority,
  serverContext,
  value,
  type SecretBed,
} from "./testing/secret-bed.js";
import { secureOrigin, type Seen } from "./testing/secure-origin.js";

let bed: SecretBed;
let seen: Seen[];
beforeEach(async () => {
  seen = [];
  bed = await makeSecretBed([secret()], { hello: 500, headers: 400, check: 50, connect: 600, answer: 500, keep: 400 });
});
afterEach(() => bed[Symbol.asyncDispose]());

const crlf = (...lines: readonly string[]): string => lines.map((line) => `${line}\r\n`).join("");
const get = (path: string, ...fields: readonly string[]): string =>
  crlf(`GET ${path} HTTP/1.1`, "Host: a.test", ...fields, "");
const withSecret = `X-Token: ${placeholder}`;

async function asked(text: string, pattern: RegExp): Promise<string> {
  const peer = await bed.secure("a.test");
  peer.socket.write(text, "latin1");
  const answer = await peer.until(pattern);
  peer.socket.destroy();
  return answer;
}

/** A TLS server of a name that is written by hand. */
async function raw(
  serve: (socket: Socket, text: string) => void,
  context: SecureContext = serverContext("a.test"),
): Promise<void> {
  const server = createTlsServer(
    { SNICallback: (_, done) => done(null, context), ALPNProtocols: ["http/1.1"] },
    (socket) => {
      let text = "";
      socket.on("error", () => undefined);
      socket.on("data", (chunk: Buffer) => {
        text += chunk.toString("latin1");
        if (text.includes("\r\n\r\n")) serve(socket, text);
      });
    },
  );
  server.on("tlsClientError", () => undefined);
  await bed.serve(first, server);
}

describe("a request to a host that a secret is for", () => {
  it("has the value where the client has the placeholder", async () => {
    await bed.serve(first, secureOrigin("a.test", seen));
    expect(await asked(get("/x", `Authorization: Bearer ${placeholder}`), /<ok/)).toMatch(/^HTTP\/1\.1 200 OK/);
    expect(seen[0]!.headers["authorization"]).toBe(`Bearer ${value}`);
    await expect
      .poll(() => bed.uses)
      .toMatchObject([
        { sandbox: "alice", secret: "TOKEN", host: "a.test", method: "GET", path: "/x", status: 200, allowed: true },
      ]);
    expect(JSON.stringify([bed.uses, bed.decisions])).not.toContain(value);
  });

  it("comes back without the value: in fields, text and body", async () => {
    await raw((socket) => {
      socket.end(`HTTP/1.1 200 ${value}\r\nX-Echo: ${value}\r\nContent-Length: ${value.length}\r\n\r\n${value}`);
    });
    const answer = await asked(get("/", withSecret), new RegExp(`\r\n\r\n[^]*${placeholder}`));
    expect(answer).not.toContain(value);
    expect(answer.match(new RegExp(placeholder, "g"))?.length).toBe(3);
  });

  it("goes over connections that are kept, each for its sandbox and server", async () => {
    const ports = new Set<number>();
    const server = secureOrigin("a.test", seen, {
      answer: (request, response) => {
        ports.add(request.socket.remotePort ?? 0);
        (response as ServerResponse).end("<ok>");
      },
    });
    await bed.serve(first, server);
    const peer = await bed.secure("a.test");
    for (let round = 1; round <= 5; round += 1) {
      peer.socket.write(get(`/${round}`, withSecret));
      await expect.poll(() => peer.text.match(/<ok>/g)?.length).toBe(round);
    }
    expect(ports.size).toBe(1);
  });

  it("waits for 100 Continue, and has trailers", async () => {
    await raw((socket, text) => {
      if (!text.includes("100-continue")) return;
      if (!text.includes("body")) socket.write("HTTP/1.1 100 Continue\r\n\r\n");
      else if (text.includes("X-Sum: 7")) {
        socket.write(
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Grade\r\n\r\n2\r\nok\r\n0\r\nX-Grade: good\r\n\r\n",
        );
      }
    });
    const peer = await bed.secure("a.test");
    const fields = [
      "POST / HTTP/1.1",
      "Host: a.test",
      "Transfer-Encoding: chunked",
      "Expect: 100-continue",
      "Trailer: X-Sum",
    ];
    peer.socket.write(crlf(...fields, ""));
    await peer.until(/100 Continue\r\n\r\n/);
    peer.socket.write(crlf("4", "body", "0", "X-Sum: 7", ""));
    expect(await peer.until(/X-Grade: good\r\n\r\n$/)).toMatch(/200 OK[^]*\r\n2\r\nok\r\n0\r\n/);
  });

  it("streams events as they come", async () => {
    const sockets: Socket[] = [];
    await raw((socket) => {
      sockets.push(socket);
      socket.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    });
    const peer = await bed.secure("a.test");
    peer.socket.write(get("/", withSecret));
    for (const text of ["data: one\n\n", "data: two\n\n"]) {
      await expect.poll(() => sockets.length).toBe(1);
      sockets[0]!.write(`${text.length.toString(16)}\r\n${text}\r\n`);
      await peer.until(new RegExp(text.trim()));
    }
  });

  it("changes over to WebSocket", async () => {
    await raw((socket, text) => {
      if (text.split("\r\n\r\n")[1] === "") {
        const head = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket"];
        socket.write(crlf(...head, `X-Got: ${/X-Token: (.*)\r/.exec(text)?.[1] === value ? "value" : "none"}`, ""));
        socket.write(Buffer.from([0x81, 2, 0x68, 0x69]));
      } else socket.write(Buffer.from([0x81, 3, 0x66, 0x6f, 0x6f]));
    });
    const peer = await bed.secure("a.test");
    const fields = [
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ];
    peer.socket.write(get("/", ...fields, withSecret));
    expect(await peer.until(/\x02hi/)).toMatch(/101 Switching Protocols[^]*X-Got: value/);
    peer.socket.write(Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69]));
    await peer.until(/\x03foo/);
    bed.grant(alice, []);
    await peer.closed;
  });

  it("is taken no further when its secret is taken away, while others go on", async () => {
    await bed.serve(first, secureOrigin("a.test", seen, { answer: () => undefined }));
    const [peer, plain] = [await bed.secure("a.test"), await bed.secure("a.test")];
    peer.socket.write(get("/", withSecret));
    plain.socket.write(get("/plain"));
    await expect.poll(() => seen.length).toBe(2);
    bed.grant(alice, [secret({ name: "OTHER", placeholder: "another-placeholder", value: "another-value" }), secret()]);
    bed.grant(alice, [secret({ name: "OTHER", placeholder: "another-placeholder", value: "another-value" })]);
    await peer.closed;
    expect(plain.socket.destroyed).toBe(false);
  });
});

describe("bodies of any size", () => {
  it("pass both ways in bounded memory, with the secret in them", async () => {
    const size = 64 * 1_048_576;
    let received = 0;
    let found = false;
    await bed.serve(
      first,
      createTlsServer({ SNICallback: (_, done) => done(null, serverContext("a.test")) }, (socket) => {
        let head = true;
        socket.on("error", () => undefined);
        socket.on("data", (chunk: Buffer) => {
          received += chunk.length;
          if (chunk.includes(value)) found = true;
          if (head) {
            head = false;
            socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
          }
          socket.write(chunk.subarray(0, 1));
        });
      }),
    );
    const peer = await bed.secure("a.test");
    peer.socket.removeAllListeners("data");
    peer.socket.resume();
    peer.socket.write(crlf("POST / HTTP/1.1", "Host: a.test", `Content-Length: ${size}`, ""));
    const block = randomBytes(1_048_576);
    const before = process.memoryUsage().rss;
    let most = 0;
    for (let sent = 0; sent < size; sent += block.length) {
      const piece =
        sent === 32 * block.length ? Buffer.concat([Buffer.from(placeholder), block]).subarray(0, block.length) : block;
      if (!peer.socket.write(piece)) await once(peer.socket, "drain");
      most = Math.max(most, process.memoryUsage().rss - before);
    }
    await expect.poll(() => received, { timeout: 10_000 }).toBeGreaterThanOrEqual(size - placeholder.length);
    expect(found).toBe(true);
    expect(most).toBeLessThan(96 * 1_048_576);
  }, 30_000);
});

describe("a server that does not prove to be the host", () => {
  const stranger = new LeafIssuer(makePair());
  const expired = (): SecureContext =>
    new LeafIssuer(serverAuthority, () => Date.now() - 2 * 24 * 3_600_000).contextFor("a.test");
  it.each([
    ["has a certificate for another name", () => serverContext("b.test"), "its certificate is for another name"],
    ["has an expired certificate", expired, "its certificate has expired"],
    [
      "has a certificate of a stranger's",
      () => stranger.contextFor("a.test"),
      "its certificate is from an unknown authority",
    ],
    [
      "has one of the sandboxes' own authority",
      () => new LeafIssuer(proxyAuthority).contextFor("a.test"),
      "its certificate is from an unknown authority",
    ],
  ])("since it %s gets nothing", async (_, context, why) => {
    await bed.serve(first, secureOrigin("a.test", seen, { context: context() }));
    const answer = await asked(get("/", withSecret), /\)\n/);
    expect(answer).toMatch(/^HTTP\/1\.1 502 Bad Gateway/);
    expect(answer).toContain(`squash: cannot reach a.test (${why})\n`);
    expect(seen).toEqual([]);
    const session = await bed.http2("a.test");
    const stream = session.request({ ":authority": "a.test", ":path": "/", "x-token": placeholder });
    stream.on("error", () => undefined);
    const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
    expect(headers[":status"]).toBe(502);
    expect(seen).toEqual([]);
  });

  it("since it does not speak TLS, or is silent, gets nothing", async () => {
    let bytes = 0;
    let answers = true;
    await bed.serve(
      first,
      createServer((socket) => {
        socket.on("data", (chunk) => (bytes += chunk.length));
        if (answers) socket.write("220 welcome\r\n");
      }),
    );
    expect(await asked(get("/", withSecret), /\)\n/)).toContain("(it does not speak TLS as it must)");
    answers = false;
    expect(await asked(get("/", withSecret), /\)\n/)).toContain("(no TLS in time)");
    expect(bytes).toBeGreaterThan(0); // its hellos
  });
});

describe("a hostile server", () => {
  it.each([
    [
      "sends fields without end",
      (socket: Socket) => {
        socket.write("HTTP/1.1 200 OK\r\n");
        const more = (): void => {
          if (!socket.destroyed) socket.write(`X: ${"y".repeat(10_000)}\r\n`, () => setImmediate(more));
        };
        more();
      },
      /502 Bad Gateway/,
    ],
    [
      "sends two lengths",
      (socket: Socket) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
      /502 Bad Gateway/,
    ],
    [
      "sends a length and chunks",
      (socket: Socket) =>
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
      /502 Bad Gateway/,
    ],
    [
      "sends another coding",
      (socket: Socket) => socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
      /502 Bad Gateway/,
    ],
    [
      "changes over though nobody asked",
      (socket: Socket) => socket.write("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
      /502 Bad Gateway/,
    ],
    ["says nothing", () => undefined, /504 Gateway Timeout/],
    ["hangs up", (socket: Socket) => socket.destroy(), /502 Bad Gateway/],
  ])("that %s is not passed on", async (_, serve, status) => {
    await raw((socket) => {
      serve(socket);
    });
    expect(await asked(get("/", withSecret), /squash: .*\n/)).toMatch(status);
  });

  it("that ends before its length is told from one that is through", async () => {
    await raw((socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"));
    const peer = await bed.secure("a.test");
    peer.socket.write(get("/", withSecret));
    await peer.closed;
    expect(peer.text).toMatch(/half/);
    expect(peer.text).not.toMatch(/\r\n0\r\n/); // no end of the chunks
  });

  it("that ends within its chunks is told from one that is through", async () => {
    await raw((socket) => socket.end("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"));
    const peer = await bed.secure("a.test");
    peer.socket.write(get("/", withSecret));
    await peer.closed;
    expect(peer.text).not.toMatch(/\r\n0\r\n/);
  });
});
