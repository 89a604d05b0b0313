import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { origin, type Got } from "./testing/origin.js";
import type { Peer } from "./testing/peer.js";
import { alice, bob, first, makeBed, second, type Bed } from "./testing/proxy-bed.js";

let bed: Bed;
/** what reached a server on behalf of the attacker */
let got: Got[];
let bystander: { stop: () => Promise<number> };

beforeEach(async () => {
  got = [];
  bed = await makeBed({ headers: 400, check: 50 });
  await bed.serve(first, origin("first", got));
  await bed.serve(second, origin("second", []));
  bystander = keepAsking(await bed.http(bob));
});
afterEach(async () => {
  expect(await bystander.stop()).toBeGreaterThan(0);
  await bed[Symbol.asyncDispose]();
});

const crlf = (...lines: readonly string[]): string => lines.map((line) => `${line}\r\n`).join("");

/** An allowed client, which must never notice. */
function keepAsking(peer: Peer): { stop: () => Promise<number> } {
  const state = { running: true };
  let answered = 0;
  const done = (async () => {
    while (state.running || answered === 0) {
      peer.socket.write(crlf("GET /ok HTTP/1.1", "Host: b.test", ""));
      await peer.until(/<second \/ok >/);
      peer.bytes = Buffer.alloc(0);
      answered += 1;
    }
  })();
  return {
    async stop() {
      state.running = false;
      await done;
      return answered;
    },
  };
}

const head = ["POST / HTTP/1.1", "Host: a.test"];
const chunked = crlf("0", "");
/** what an attacker wants a server to take for a request of its own */
const smuggled = crlf("GET /smuggled HTTP/1.1", "Host: c.test", "");

const refused: Readonly<Record<string, readonly [request: string, status: number, rule: RegExp]>> = {
  "a forged Host": [crlf("GET / HTTP/1.1", "Host: c.test", ""), 403, /not listed/],
  "no Host": [crlf("GET / HTTP/1.1", ""), 400, /no Host field/],
  "no Host in HTTP/1.0": [crlf("GET / HTTP/1.0", ""), 400, /no Host field/],
  "an empty Host": [crlf("GET / HTTP/1.1", "Host:", ""), 400, /not a name/],
  "two Hosts": [crlf("GET / HTTP/1.1", "Host: a.test", "Host: c.test", ""), 400, /more than one Host/],
  "two Hosts of different case": [
    crlf("GET / HTTP/1.1", "Host: a.test", "hOST: a.test", ""),
    400,
    /more than one Host/,
  ],
  "a Host list": [crlf("GET / HTTP/1.1", "Host: a.test, c.test", ""), 400, /not a name/],
  "a Host with another port": [crlf("GET / HTTP/1.1", "Host: a.test:8080", ""), 400, /not a name on port 80/],
  "a Host with an empty port": [crlf("GET / HTTP/1.1", "Host: a.test:", ""), 400, /not a name/],
  "a Host with a user": [crlf("GET / HTTP/1.1", "Host: a.test@c.test", ""), 400, /not a name/],
  "a Host with a path": [crlf("GET / HTTP/1.1", "Host: c.test/a.test", ""), 400, /not a name/],
  "a Host with a space": [crlf("GET / HTTP/1.1", "Host: a.test c.test", ""), 400, /not a name/],
  "a Host with a tab": [crlf("GET / HTTP/1.1", "Host: a.test\tc.test", ""), 400, /not a name/],
  "an IPv4 Host": [crlf("GET / HTTP/1.1", `Host: ${first}`, ""), 400, /not a name/],
  "a short IPv4 Host": [crlf("GET / HTTP/1.1", "Host: 127.1", ""), 400, /not a name/],
  "an IPv6 Host": [crlf("GET / HTTP/1.1", "Host: [::1]", ""), 400, /not a name/],
  "two final dots": [crlf("GET / HTTP/1.1", "Host: a.test..", ""), 400, /not a name/],
  "another absolute target": [crlf("GET http://c.test/ HTTP/1.1", "Host: a.test", ""), 400, /does not agree/],
  "an allowed absolute target": [crlf("GET http://a.test/ HTTP/1.1", "Host: c.test", ""), 400, /does not agree/],
  "an absolute target with a user": [crlf("GET http://a.test@c.test/ HTTP/1.1", "Host: a.test", ""), 400, /not agree/],
  "an absolute target with a port": [crlf("GET http://a.test:81/ HTTP/1.1", "Host: a.test", ""), 400, /not agree/],
  "a target of another scheme": [crlf("GET https://a.test/ HTTP/1.1", "Host: a.test", ""), 400, /neither a path/],
  "an authority as the target": [crlf("GET a.test:80 HTTP/1.1", "Host: a.test", ""), 400, /./],
  "an asterisk with GET": [crlf("GET * HTTP/1.1", "Host: a.test", ""), 400, /neither a path/],
  CONNECT: [crlf("CONNECT a.test:80 HTTP/1.1", "Host: a.test", ""), 405, /CONNECT/],
  "a length and chunks": [
    crlf(...head, "Content-Length: 5", "Transfer-Encoding: chunked", "") + chunked + smuggled,
    400,
    /./,
  ],
  "chunks and a length": [
    crlf(...head, "Transfer-Encoding: chunked", "Content-Length: 5", "") + chunked + smuggled,
    400,
    /./,
  ],
  "two lengths": [crlf(...head, "Content-Length: 0", "Content-Length: 5", "") + smuggled, 400, /./],
  "two equal lengths": [crlf(...head, "Content-Length: 0", "Content-Length: 0", "") + smuggled, 400, /./],
  "a list of lengths": [crlf(...head, "Content-Length: 0, 0", "") + smuggled, 400, /./],
  "a signed length": [crlf(...head, "Content-Length: +0", "") + smuggled, 400, /./],
  "a hexadecimal length": [crlf(...head, "Content-Length: 0x0", "") + smuggled, 400, /./],
  "a negative length": [crlf(...head, "Content-Length: -1", "") + smuggled, 400, /./],
  xchunked: [crlf(...head, "Transfer-Encoding: xchunked", "") + chunked + smuggled, 400, /./],
  "chunked, identity": [crlf(...head, "Transfer-Encoding: chunked, identity", "") + chunked + smuggled, 400, /./],
  "gzip, chunked": [crlf(...head, "Transfer-Encoding: gzip, chunked", "") + chunked + smuggled, 400, /./],
  "chunked twice": [
    crlf(...head, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", "") + chunked + smuggled,
    400,
    /./,
  ],
  "chunked in HTTP/1.0": [
    crlf("POST / HTTP/1.0", "Host: a.test", "Transfer-Encoding: chunked", "") + chunked,
    400,
    /./,
  ],
  "a space before the colon": [crlf(...head, "Transfer-Encoding : chunked", "") + chunked + smuggled, 400, /./],
  "a space before the colon of Host": [crlf("GET / HTTP/1.1", "Host : a.test", "Host: c.test", ""), 400, /./],
  "a folded first field": [crlf("GET / HTTP/1.1", " Host: a.test", "Host: c.test", ""), 400, /./],
  "a NUL in a field": [crlf("GET / HTTP/1.1", "Host: a.test\0c.test", ""), 400, /./],
  "a bare CR in a field": [crlf("GET / HTTP/1.1", "Host: a.test", "X: a\rHost: c.test", ""), 400, /./],
  garbage: ["\x16\x03\x01\x00\xff\r\n\r\n", 400, /./],
  "no version": [crlf("GET /", "Host: a.test", ""), 400, /./],
  "another version": [crlf("GET / HTTP/3.7", "Host: a.test", ""), 400, /./],
  "an unknown method": [crlf("FROB / HTTP/1.1", "Host: a.test", ""), 400, /./],
  "a head that is too large": [
    crlf("GET / HTTP/1.1", "Host: a.test", `X: ${"x".repeat(70_000)}`, ""),
    431,
    /too large/,
  ],
  "a target that is too large": [crlf(`GET /${"x".repeat(70_000)} HTTP/1.1`, "Host: a.test", ""), 431, /too large/],
};

describe("a request with", () => {
  it.each(Object.entries(refused))(
    "%s is refused, and nothing of it reaches a server",
    async (_, [request, status, rule]) => {
      const peer = await bed.http();
      peer.socket.write(request, "latin1");
      const answer = await peer.until(/squash: .*\n/);
      expect(answer.startsWith(`HTTP/1.1 ${status} `)).toBe(true);
      expect(answer).toMatch(rule);
      expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1);
      if (status !== 403) await peer.closed;
      const own = bed.decisions.filter(({ sandbox }) => sandbox === "alice");
      expect(own.map(({ allowed }) => allowed)).toEqual([false]);
      expect(own[0]!.rule).toMatch(rule);
      expect(got).toEqual([]);
      peer.socket.destroy();
    },
  );

  /* What llhttp reads leniently is written anew for the server, so that both read the same. */
  const rewritten: Readonly<Record<string, string>> = {
    "a field that is folded": crlf("GET /x HTTP/1.1", "X-Fold: a", " b", "\tHost: c.test", "Host: a.test", ""),
    "many fields": crlf("GET /x HTTP/1.1", ...Array<string>(2_100).fill("X: y"), "Host: a.test", ""),
    "empty lines before it": crlf("", "", "GET /x HTTP/1.1", "Host: a.test", ""),
    "Host among the fields of the connection": crlf("GET /x HTTP/1.1", "Host: a.test", "Connection: Host, close", ""),
  };

  it.each(Object.entries(rewritten))("%s reaches the server in one reading, or not at all", async (_, request) => {
    const peer = await bed.http();
    peer.socket.write(request);
    const answer = await peer.until(/<first \/x >|squash: .*\n/);
    if (answer.includes("squash:")) expect(got).toEqual([]);
    else {
      const fields = got[0]!.rawHeaders;
      expect(fields.filter((_, index) => fields[index - 1] === "Host")).toEqual(["a.test"]);
      expect(fields.join("")).not.toMatch(/[\r\n]/);
    }
    peer.socket.destroy();
  });

  it("bare line feeds is read as the server reads it, or refused", async () => {
    const peer = await bed.http();
    peer.socket.write(`POST /x HTTP/1.1\nHost: a.test\nContent-Length: ${smuggled.length}\n\n${smuggled}`);
    await peer.until(/<first \/x |squash: .*\n/);
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (const { line, body } of got) expect([line, body]).toEqual(["POST /x", smuggled]);
    peer.socket.destroy();
  });

  it("a bad chunk size is cut off, and what follows reaches no server as a request", async () => {
    const peer = await bed.http();
    peer.socket.write(crlf(...head, "Transfer-Encoding: chunked", "", "0x0", "") + smuggled);
    await peer.closed;
    expect(bed.log().join()).toMatch(/null null refused a malformed request: HPE_/);
    expect(got.filter(({ line }) => line !== "POST /")).toEqual([]);
  });

  it("another Host later on the connection is refused", async () => {
    const peer = await bed.http();
    peer.socket.write(crlf("GET /1 HTTP/1.1", "Host: a.test", "", "GET /2 HTTP/1.1", "Host: c.test", ""));
    await peer.until(/<first \/1 >[^]*squash: egress to c\.test is not allowed/);
    expect(got.map(({ line }) => line)).toEqual(["GET /1"]);
    peer.socket.destroy();
  });

  it("the preface of HTTP/2 gets nowhere", async () => {
    const peer = await bed.http();
    peer.socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    await peer.closed;
    expect(got).toEqual([]);
  });

  it("a refused body gets its answer before the connection goes", async () => {
    const peer = await bed.http();
    peer.socket.write(crlf("PUT / HTTP/1.1", "Host: c.test", "Content-Length: 100000000", ""));
    const drip = setInterval(() => peer.socket.write("x".repeat(10_000)), 5);
    await peer.closed.finally(() => clearInterval(drip));
    expect(peer.text).toMatch(/^HTTP\/1\.1 403 [^]*Connection: close[^]*squash: egress to c\.test/);
  });

  it("a name whose addresses are refused gets no connection to them", async () => {
    bed.allow(alice, ["a.test"], [first]);
    const peer = await bed.http();
    peer.socket.write(crlf("GET / HTTP/1.1", "Host: a.test", ""));
    expect(await peer.until(/squash: .*\n/)).toMatch(
      /403 [^]*squash: egress to a\.test is not allowed \(private address\)/,
    );
    expect(got).toEqual([]);
    peer.socket.destroy();
  });

  it("an allowed name goes to the address that was checked, though it resolves to another one next", async () => {
    let asked = 0;
    bed.allow(alice, ["a.test"], [second]);
    bed.names.set("a.test", () => [asked++ === 0 ? first : second]);
    for (const pattern of [/<first \/ >/, /private address/]) {
      const peer = await bed.http();
      peer.socket.write(crlf("POST / HTTP/1.1", "Host: a.test", ""));
      await peer.until(pattern);
      peer.socket.destroy();
    }
  });
});

describe("a client that", () => {
  it.each([
    ["sends nothing", ""],
    ["sends a head a byte at a time", crlf("GET / HTTP/1.1", "Host: a.test", `X: ${"x".repeat(1_000)}`)],
  ])("%s is told so when its time is over", async (_, text) => {
    const peer = await bed.http();
    let at = 0;
    const drip = setInterval(() => peer.socket.write(text.slice(at, ++at)), 20);
    const before = performance.now();
    await peer.closed.finally(() => clearInterval(drip));
    expect(performance.now() - before).toBeLessThan(2_000);
    expect(peer.text).toMatch(/^HTTP\/1\.1 408 /);
  });
});
