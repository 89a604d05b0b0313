import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { origin, type Got } from "./testing/origin.js";
import { Peer } from "./testing/peer.js";
import { alice, bob, first, makeBed, second, type Bed } from "./testing/proxy-bed.js";

let bed: Bed;
let got: Got[];
/** raw servers' connections */
let served: Peer[];

beforeEach(async () => {
  got = [];
  served = [];
  bed = await makeBed({ connect: 300, dial: 600, resolve: 300, answer: 300, headers: 400, check: 50 });
});
afterEach(() => bed[Symbol.asyncDispose]());

const crlf = (...lines: readonly string[]): string => lines.map((line) => `${line}\r\n`).join("");
const get = (host: string, path = "/", ...fields: readonly string[]): string =>
  crlf(`GET ${path} HTTP/1.1`, `Host: ${host}`, ...fields, "");

async function asked(text: string, pattern: RegExp, from = alice): Promise<string> {
  const peer = await bed.http(from);
  peer.socket.write(text, "latin1");
  const answer = await peer.until(pattern);
  peer.socket.destroy();
  return answer;
}

/** A server that is written by hand: answers the n-th connection's first request with what `answer` gives. */
async function rawServer(answer: (peer: Peer, text: string) => void, address = first): Promise<void> {
  const server = createServer((socket) => {
    const peer = new Peer(socket);
    served.push(peer);
    let answered = false;
    socket.on("data", () => {
      if (answered || !peer.text.includes("\r\n\r\n")) return;
      answered = true;
      answer(peer, peer.text);
    });
  });
  await bed.serve(address, server);
}

describe("an allowed request", () => {
  beforeEach(async () => {
    await bed.serve(first, origin("first", got));
    await bed.serve(second, origin("second", got));
  });

  it("goes to where its name resolves to, and is audited", async () => {
    expect(await asked(get("a.test", "/x?y=1"), />/)).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*<first \/x\?y=1 >/);
    expect(bed.decisions).toEqual([
      {
        ...{ sandbox: "alice", kind: "http", name: "a.test", address: first, port: 80, protocol: "tcp" },
        ...{ allowed: true, rule: "allow a.test" },
      },
    ]);
  });

  it("decides on each request of a connection for itself, and keeps it where one is refused", async () => {
    const peer = await bed.http();
    peer.socket.write(get("a.test", "/1"));
    await peer.until(/<first \/1 >/);
    peer.socket.write(get("c.test", "/2"));
    await peer.until(/squash: egress to c\.test is not allowed \(not listed\)\n/);
    expect(peer.text).toMatch(/HTTP\/1\.1 403 Forbidden\r\nContent-Type: text\/plain/);
    peer.socket.write(get("b.test", "/3"));
    await peer.until(/<second \/3 >/);
    expect(got.map(({ line }) => line)).toEqual(["GET /1", "GET /3"]);
    expect(bed.proxy.counters(alice)).toEqual({ open: 1, allowed: 2, refused: 1 });
  });

  it("serves requests that are sent ahead one after the other, and cuts off who sends too many", async () => {
    const peer = await bed.http();
    peer.socket.write(get("a.test", "/1") + get("c.test", "/2") + get("b.test", "/3"));
    expect(await peer.until(/\/3 >/)).toMatch(/first \/1 >[^]*403[^]*second \/3 >/);
    const flood = await bed.http();
    flood.socket.write(get("a.test").repeat(40));
    await flood.closed;
    expect(bed.log().at(-1)).toBe("null null refused too many requests sent ahead");
  });

  it("keeps fields in their order and case, duplicates too, and drops what is for the next machine only", async () => {
    const fields = ["x-One: 1", "COOKIE: a", "x-one: 2", "Cookie: b", "Accept:  spaced  ", "X-Latin: \xe9"];
    const hop = [
      "Connection: keep-alive, X-Private",
      "X-Private: 1",
      "Keep-Alive: 1",
      "Proxy-Authorization: x",
      "TE: gzip",
    ];
    await asked(crlf("GET / HTTP/1.1", ...fields, "HOST: A.Test.:80", ...hop, ""), />/);
    expect(got[0]!.rawHeaders).toEqual([
      ...["x-One", "1", "COOKIE", "a", "x-one", "2", "Cookie", "b", "Accept", "spaced", "X-Latin", "\xe9"],
      ...["HOST", "a.test", "Connection", "keep-alive"],
    ]);
  });

  it("takes absolute targets that agree, and OPTIONS for the whole server", async () => {
    await asked(get("a.test", "http://A.test:80/p?q"), />/);
    await asked(get("a.test", "http://a.test"), />/);
    await asked(get("a.test", "http://a.test?q"), />/);
    await asked(crlf("OPTIONS * HTTP/1.1", "Host: a.test", ""), />/);
    expect(got.map(({ line }) => line)).toEqual(["GET /p?q", "GET /", "GET /?q", "OPTIONS *"]);
  });

  it("passes bodies on, of a length and in chunks, with trailers", async () => {
    const post = ["POST /b HTTP/1.1", "Host: a.test"];
    expect(await asked(`${crlf(...post, "Content-Length: 4", "")}body`, />/)).toMatch(/<first \/b body>/);
    const chunks = crlf("3", "one", "4", "four", "0", "X-Sum: 7", "Host: c.test", "Authorization: x", "");
    expect(await asked(crlf(...post, "Transfer-Encoding: chunked", "Trailer: X-Sum", "") + chunks, />/)).toMatch(
      /onefour>/,
    );
    expect(got[1]!.trailers).toEqual(["X-Sum", "7"]);
    await asked(crlf(...post, ""), />/);
    expect(got[2]!.rawHeaders).toEqual(["Host", "a.test", "Content-Length", "0", "Connection", "close"]);
  });

  it("goes without an upgrade that is not one to WebSocket", async () => {
    const h2c = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"];
    const peer = await bed.http();
    peer.socket.write(`${crlf("POST /1 HTTP/1.1", "Host: a.test", ...h2c, "Content-Length: 3", "")}abc`);
    await peer.until(/<first \/1 abc>/);
    peer.socket.write(get("a.test", "/2", ...h2c));
    await peer.until(/<first \/2 >/);
    peer.socket.write(get("c.test", "/3", ...h2c));
    await peer.until(/403 Forbidden/);
    for (const { rawHeaders } of got) expect(rawHeaders.join()).not.toMatch(/upgrade|http2/i);
  });

  it("is served for HTTP/1.0", async () => {
    const peer = await bed.http();
    peer.socket.write(crlf("GET / HTTP/1.0", "Host: a.test", ""));
    expect(await peer.rest()).toMatch(/^HTTP\/1\.1 200 OK\r\n(?![^]*chunked)[^]*<first \/ >$/);
  });

  it("shares connections to servers within a sandbox and name only", async () => {
    const ports: (number | undefined)[] = [];
    const server = createHttpServer((request, response) => {
      ports.push(request.socket.remotePort);
      response.end("<ok>");
    });
    await bed.serve("127.0.1.4", server);
    for (const name of ["a.test", "b.test"]) bed.names.set(name, () => ["127.0.1.4"]);
    for (const [name, from] of [
      ["a.test", alice],
      ["a.test", alice],
      ["b.test", alice],
      ["a.test", bob],
    ] as const) {
      await asked(get(name), /ok>/, from);
    }
    const [one, again, otherName, otherSandbox] = ports;
    expect(again).toBe(one);
    expect(new Set([one, otherName, otherSandbox]).size).toBe(3);
    bed.allow(alice, ["a.test"], ["127.0.1.4"]); // closes those that wait
    expect(await asked(get("a.test"), /\)\n/)).toMatch(/\(private address\)/);
  });
});

describe("an answer", () => {
  it("keeps its fields, status text, chunks and trailers, and early hints come before it", async () => {
    await rawServer((peer) => {
      peer.socket.write(
        crlf("HTTP/1.1 103 Early Hints", "Link: </x>", "", "HTTP/1.1 299 Odd Thing", "x-A: 1", "X-a: 2"),
      );
      peer.socket.write(
        crlf("Set-Cookie: a", "Connection: x-hop", "x-hop: 1", "Trailer: X-T", "Transfer-Encoding: chunked", ""),
      );
      peer.socket.write(crlf("5", "hello", "0", "X-T: 1", ""));
    });
    const answer = await asked(get("a.test"), /X-T: 1\r\n\r\n/);
    expect(answer).toMatch(
      /^HTTP\/1\.1 103 Early Hints\r\nLink: <\/x>\r\n\r\nHTTP\/1\.1 299 Odd Thing\r\nx-A: 1\r\nX-a: 2\r\nSet-Cookie: a\r\n/,
    );
    expect(answer).toMatch(/\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n$/);
    expect(answer).not.toMatch(/x-hop|Date:/);
  });

  it("to Expect: 100-continue is the server's own", async () => {
    await rawServer((peer, text) => {
      expect(text).toMatch(/\r\nExpect: 100-continue\r\n/);
      peer.socket.write("HTTP/1.1 100 Continue\r\n\r\n");
      peer.socket.on("data", () => {
        if (peer.text.endsWith("body")) peer.socket.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
      });
    });
    const peer = await bed.http();
    peer.socket.write(crlf("PUT / HTTP/1.1", "Host: a.test", "Expect: 100-continue", "Content-Length: 4", ""));
    expect(await peer.until(/\r\n\r\n/)).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    peer.socket.write("body");
    expect(await peer.until(/done/)).toMatch(/HTTP\/1\.1 200 OK/);
  });

  it("may come before the body is there, whose rest nobody waits for", async () => {
    await rawServer((peer) => peer.socket.write("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"));
    const peer = await bed.http();
    peer.socket.write(crlf("PUT / HTTP/1.1", "Host: a.test", "Content-Length: 1000000", "") + "x".repeat(1000));
    expect(await peer.until(/no$/)).toMatch(/^HTTP\/1\.1 413 No/);
    await peer.closed;
  });

  it("may change over to WebSocket, which goes both ways from then on, with what was sent ahead", async () => {
    await rawServer((peer) => {
      peer.socket.write("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX: y\r\n\r\nearly");
      peer.socket.on("data", () => {
        if (peer.text.endsWith("ping")) peer.socket.write("pong");
      });
    });
    const fields = ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Key: k"];
    const peer = await bed.http();
    peer.socket.write(`${get("a.test", "/ws", ...fields)}ahead`);
    expect(await peer.until(/early$/)).toBe(
      "HTTP/1.1 101 Switching\r\nX: y\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly",
    );
    peer.socket.write("ping");
    await peer.until(/pong$/);
    expect(served[0]!.text).toMatch(
      /Sec-WebSocket-Key: k\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\naheadping$/,
    );
    expect(bed.proxy.counters(alice).open).toBe(1);
    bed.allow(alice, []);
    await Promise.all([peer.closed, served[0]!.closed]);
    await expect.poll(() => bed.proxy.counters(alice).open).toBe(0);
  });

  it("to a WebSocket request may also be a refusal, the server's or ours", async () => {
    await rawServer((peer) => peer.socket.write("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"));
    const fields = ["Connection: Upgrade", "Upgrade: websocket"];
    const peer = await bed.http();
    peer.socket.write(get("a.test", "/", ...fields));
    expect(await peer.rest()).toMatch(/^HTTP\/1\.1 401 No\r\n[^]*no$/);
    const refused = await bed.http();
    refused.socket.write(get("c.test", "/", ...fields));
    expect(await refused.rest()).toMatch(/^HTTP\/1\.1 403 [^]*egress to c\.test is not allowed/);
    expect(served).toHaveLength(1);
  });

  const faults: Readonly<Record<string, readonly [string, RegExp]>> = {
    "two lengths": ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nno", /^HTTP\/1\.1 502 /],
    "another coding": ["HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nno", /^HTTP\/1\.1 502 [^]*unknown coding/],
    "no HTTP": ["SSH-2.0-OpenSSH\r\n\r\n", /^HTTP\/1\.1 502 /],
    "a change that nobody asked for": [
      "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
      /^HTTP\/1\.1 502 [^]*nobody asked/,
    ],
    "too many informational answers": [
      "HTTP/1.1 103 E\r\nLink: x\r\n\r\n".repeat(17),
      /(HTTP\/1\.1 103 [^]*){16}HTTP\/1\.1 502 /,
    ],
    "an impossible status": ["HTTP/1.1 000 No\r\nContent-Length: 0\r\n\r\n", /^HTTP\/1\.1 502 /],
    "a head that is too large": [`HTTP/1.1 200 OK\r\nX: ${"x".repeat(70_000)}\r\n\r\n`, /^HTTP\/1\.1 502 /],
  };

  it.each(Object.entries(faults))("is a 502 for a server that sends %s", async (_, [bytes, pattern]) => {
    await rawServer((peer) => peer.socket.write(bytes));
    expect(await asked(get("a.test"), /squash: cannot reach a\.test \(.*\)\n$/)).toMatch(pattern);
  });

  it("is a 504 where the server does not answer, and a 502 where there is none", async () => {
    await rawServer(() => undefined);
    expect(await asked(get("a.test"), /\)\n/)).toMatch(
      /^HTTP\/1\.1 504 [^]*cannot reach a\.test \(no answer in time\)/,
    );
    expect(await asked(get("b.test"), /\)\n/)).toMatch(/^HTTP\/1\.1 502 [^]*cannot reach b\.test \(unreachable\)/);
    bed.names.set("b.test", () => []);
    expect(await asked(get("b.test"), /\)\n/)).toMatch(/^HTTP\/1\.1 502 [^]*\(no address\)/);
    bed.names.set("b.test", () => new Promise<never>(() => undefined));
    expect(await asked(get("b.test"), /\)\n/)).toMatch(/^HTTP\/1\.1 502 [^]*\(no address\)/);
  });

  it("that stops half way is cut off for the client, too", async () => {
    await rawServer((peer) => {
      peer.socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", () => peer.socket.destroy());
    });
    const peer = await bed.http();
    peer.socket.write(get("a.test"));
    await peer.closed;
    expect(peer.text).not.toMatch(/squash:/);
    await expect.poll(() => bed.proxy.counters(alice).open).toBe(0);
  });

  it("is asked for again where a kept connection turns out to be closed, but only without a body", async () => {
    await rawServer((peer) => {
      peer.socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      peer.socket.once("data", () => peer.socket.resetAndDestroy()); // on the second request
    });
    expect(await asked(get("a.test"), /ok/)).toMatch(/200/);
    expect(await asked(get("a.test"), /ok/)).toMatch(/200/);
    expect(served).toHaveLength(2);
  });

  it("ends for the server when the client goes away", async () => {
    await rawServer((peer) => peer.socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"));
    const peer = await bed.http();
    peer.socket.write(get("a.test"));
    await peer.until(/half/);
    peer.socket.destroy();
    await served[0]!.closed;
  });

  it("and a request are read no faster than they are taken, and whole", async () => {
    const size = 64 << 20;
    let sent = 0;
    const server = createHttpServer((request, response) => {
      if (request.method === "PUT") {
        let count = 0;
        setTimeout(() => request.on("data", (chunk: Buffer) => (count += chunk.length)), 300);
        request.on("end", () => response.end(`<${count}>`));
        return;
      }
      response.setHeader("Content-Length", size);
      const go = (): void => {
        while (sent < size) {
          sent += 65_536;
          if (!response.write(Buffer.alloc(65_536))) return;
        }
        response.end();
      };
      response.on("drain", go);
      go();
    });
    await bed.serve(first, server);
    const down = await bed.http();
    down.socket.removeAllListeners("data").pause();
    down.socket.write(get("a.test"));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(sent).toBeLessThan(40 << 20); // the rest waits, beyond what the kernel holds
    down.socket.resume();
    await expect.poll(() => down.socket.bytesRead, { timeout: 4_000 }).toBeGreaterThan(size);
    const up = await bed.http();
    up.socket.write(crlf("PUT / HTTP/1.1", "Host: a.test", `Content-Length: ${size}`, ""));
    for (let round = 0; round < size >> 20; round++) up.socket.write(Buffer.alloc(1 << 20));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(up.socket.writableLength).toBeGreaterThan(10 << 20);
    expect(await up.until(/<\d+>/)).toContain(`<${size}>`);
  });
});

describe("what is under way", () => {
  it("is cut when it is no longer allowed, and an allowed one goes on", async () => {
    for (const address of [first, second]) {
      await rawServer((peer) => peer.socket.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), address);
    }
    const [cut, kept] = [await bed.http(), await bed.http()];
    cut.socket.write(get("a.test"));
    await cut.until(/half/);
    kept.socket.write(get("b.test"));
    await kept.until(/half/);
    bed.allow(alice, ["b.test"]);
    await Promise.all([cut.closed, served[0]!.closed]);
    expect(bed.log().at(-1)).toBe(`a.test ${first} refused not listed`);
    served[1]!.socket.write("and up");
    await kept.until(/halfand up/);
    bed.proxy.forget(alice);
    await kept.closed;
  });
});
