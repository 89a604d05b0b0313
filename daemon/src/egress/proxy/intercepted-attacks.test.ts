import { once } from "node:events";
import { connect } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { helloFor } from "./testing/build-hello.js";
import { Peer, connectFrom } from "./testing/peer.js";
import { alice, first, second } from "./testing/proxy-bed.js";
import {
  makeSecretBed,
  placeholder,
  proxyAuthority,
  secret,
  serverAuthority,
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

describe("a client that lies", () => {
  beforeEach(async () => {
    await bed.serve(first, secureOrigin("a.test", seen));
    await bed.serve(second, secureOrigin("b.test", seen));
  });

  it.each([
    ["names another host than in TLS", "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n", 421],
    ["names another host in the URL", "GET https://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["names a URL without TLS", "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["names another port", "GET / HTTP/1.1\r\nHost: a.test:444\r\n\r\n", 400],
    ["names no host", "GET / HTTP/1.1\r\n\r\n", 400],
    ["names two hosts", "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 400],
    ["gives two lengths", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400],
    [
      "gives a length and chunks",
      "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      400,
    ],
    [
      "gives chunks in disguise",
      "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
      400,
    ],
    ["folds a line", "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n b\r\n\r\n", 400],
    ["ends a line by LF alone", "GET / HTTP/1.1\nHost: a.test\n\n", 400],
    ["puts a CR into a field", `GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rX-Token: ${placeholder}\r\n\r\n`, 400],
    ["asks for a CONNECT", "CONNECT b.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 405],
    ["has a head without end", `GET / HTTP/1.1\r\nHost: a.test\r\nX: ${"y".repeat(70_000)}\r\n\r\n`, 431],
    ["is slow", "GET / HTTP/1.1\r\nHost:", 408],
  ])("since it %s is refused and audited", async (_, text, status) => {
    expect(await asked(text, /squash: .*\n/)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(seen).toEqual([]);
    expect(bed.decisions.at(-1)).toMatchObject({ allowed: false });
  });

  it("is told so while it still sends a head without end", async () => {
    for (let round = 0; round < 10; round += 1) {
      const endless = `GET / HTTP/1.1\r\nHost: a.test\r\nX: ${"y".repeat(1_000_000)}`;
      expect(await asked(endless, /squash: .*\n/)).toMatch(/^HTTP\/1\.1 431 /);
    }
    expect(bed.decisions).toHaveLength(10);
  });

  it("hides no second request in the first one's body", async () => {
    const hidden = get("/hidden", withSecret);
    const text = crlf("POST /first HTTP/1.1", "Host: a.test", `Content-Length: ${hidden.length}`, "");
    await asked(text + hidden + get("/next"), /\/next/);
    expect(seen.map(({ line }) => line)).toEqual(["POST /first", "GET /next"]);
  });

  it("gets nothing by TLS that is not for its names, nor later under another one", async () => {
    const plain = connect({
      socket: (await connectFrom(alice, bed.tlsPort)).socket,
      servername: "c.test",
      ca: proxyAuthority.certificatePem,
    });
    const [error] = (await once(plain, "error")) as [Error];
    expect(error.message).toContain("alert");
    expect(bed.log().at(-1)).toBe("c.test null refused not listed");
  });
});

describe("a host that no secret is for", () => {
  it("speaks with the client alone", async () => {
    await bed.serve(second, secureOrigin("b.test", seen));
    const { socket } = await connectFrom(alice, bed.tlsPort);
    socket.removeAllListeners("data");
    const tls = connect({ socket, servername: "b.test", ca: serverAuthority.certificatePem });
    await once(tls, "secureConnect"); // by the server's certificate
    const peer = new Peer(tls);
    tls.write(`GET / HTTP/1.1\r\nHost: b.test\r\n${withSecret}\r\n\r\n`);
    await peer.until(/<ok/);
    expect(seen[0]!.headers["x-token"]).toBe(placeholder);
    bed.grant(alice, [secret({ allowedHosts: ["b.test"] })]);
    await peer.closed; // it is to come again, to be read
  });

  it("is a tunnel as well for a sandbox that trusts no authority of ours", async () => {
    await bed.serve(first, secureOrigin("a.test", seen));
    bed.clients.set(alice, { ...bed.clients.get(alice)!, authority: null });
    const { socket } = await connectFrom(alice, bed.tlsPort);
    const tls = connect({ socket, servername: "a.test", ca: serverAuthority.certificatePem });
    await once(tls, "secureConnect");
    tls.destroy();
  });
});

describe("a client that does not trust the proxy", () => {
  it("is audited when it says so, and cut off", async () => {
    const peer = await connectFrom(alice, bed.tlsPort);
    peer.socket.write(Buffer.concat([helloFor("a.test"), Buffer.from([21, 3, 3, 0, 2, 2, 48])]));
    await peer.closed;
    expect(bed.log()).toEqual([expect.stringMatching(/^a\.test null refused the client did not accept/)]);
  });

  it("is audited, and gone", async () => {
    const { socket } = await connectFrom(alice, bed.tlsPort);
    const tls = connect({ socket, servername: "a.test", ca: serverAuthority.certificatePem });
    await once(tls, "error");
    await expect
      .poll(() => bed.log().at(-1))
      .toMatch(/a\.test null refused (?:the client did not accept|no TLS in time)/);
    await expect.poll(() => bed.proxy.counters(alice).open).toBe(0);
  });
});
