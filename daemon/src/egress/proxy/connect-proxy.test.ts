import { once } from "node:events";
import { createServer } from "node:net";
import { connect } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { helloFor } from "./testing/build-hello.js";
import { FakePolicy } from "./testing/fake-policy.js";
import { origin, type Got } from "./testing/origin.js";
import { Peer, connectFrom } from "./testing/peer.js";
import { alice, first } from "./testing/proxy-bed.js";
import { makeSecretBed, placeholder, proxyAuthority, secret, value, type SecretBed } from "./testing/secret-bed.js";
import { secureOrigin, type Seen } from "./testing/secure-origin.js";

let bed: SecretBed;
beforeEach(async () => {
  bed = await makeSecretBed([secret()], { headers: 400, hello: 400, check: 50, connect: 500, resolve: 300 });
});
afterEach(() => bed[Symbol.asyncDispose]());

const crlf = (...lines: readonly string[]): string => lines.map((line) => `${line}\r\n`).join("");
const ask = async (...lines: readonly string[]): Promise<Peer> => {
  const peer = await connectFrom(alice, bed.explicitPort);
  peer.socket.write(crlf(...lines, ""), "latin1");
  return peer;
};
const refused = async (...lines: readonly string[]): Promise<string> => {
  const peer = await ask(...lines);
  await peer.until(/squash: .*\n/);
  return peer.rest();
};

describe("a program that asks the proxy", () => {
  it("by CONNECT speaks TLS to it, where a secret is for the host", async () => {
    const seen: Seen[] = [];
    await bed.serve(first, secureOrigin("a.test", seen));
    const peer = await ask("CONNECT a.test:443 HTTP/1.1", "Host: a.test:443");
    await peer.until(/^HTTP\/1\.1 200 .*\r\n\r\n$/);
    peer.socket.removeAllListeners("data");
    const tls = connect({ socket: peer.socket, servername: "a.test", ca: proxyAuthority.certificatePem });
    await once(tls, "secureConnect");
    const within = new Peer(tls);
    tls.write(crlf("GET /x HTTP/1.1", "Host: a.test", `X-Token: ${placeholder}`, ""));
    await within.until(/<ok \/x >/);
    expect(seen[0]!.headers["x-token"]).toBe(value);
    expect(bed.uses[0]).toMatchObject({ secret: "TOKEN", host: "a.test", allowed: true });
    tls.destroy();
  });

  it("by CONNECT gets a tunnel to another port, and to a host that no secret is for", async () => {
    const echo = createServer((socket) => socket.pipe(socket));
    await bed.serve("127.0.1.2", echo); // b.test
    const peer = await ask(`CONNECT b.test:${bed.port} HTTP/1.1`, `Host: b.test:${bed.port}`);
    await peer.until(/\r\n\r\n$/);
    peer.socket.write("hello");
    await peer.until(/\r\n\r\nhello$/);
    expect(bed.decisions.at(-1)).toMatchObject({ name: "b.test", port: bed.port, allowed: true });
    const tls = await ask("CONNECT b.test:443 HTTP/1.1");
    await tls.until(/\r\n\r\n$/);
    const hello = helloFor("b.test");
    tls.socket.write(hello);
    await expect.poll(() => tls.bytes.length).toBeGreaterThanOrEqual(hello.length + 39);
    expect(tls.bytes.subarray(-hello.length).equals(hello)).toBe(true); // as it came
  });

  it("by URL is served as on port 80, whatever the port, but without the secret", async () => {
    const got: Got[] = [];
    await bed.serve(first, origin("first", got));
    const url = `http://a.test:${bed.port}`;
    const peer = await ask(`GET ${url}/x HTTP/1.1`, `Host: a.test:${bed.port}`, "Proxy-Connection: keep-alive");
    await peer.until(/<first \/x >/);
    expect(got[0]!.rawHeaders.slice(0, 2)).toEqual(["Host", `a.test:${bed.port}`]);
    peer.socket.write(crlf(`GET http://a.test/y HTTP/1.1`, "Host: a.test", `X-Token: ${placeholder}`, ""));
    await peer.until(/403 Forbidden[^]*squash: Cannot send the placeholder of secret "TOKEN"/);
    expect(got.length).toBe(1);
  });

  it("reaches an address that the policy allows: by URL on each port, by CONNECT whatever is within", async () => {
    const got: Got[] = [];
    await bed.serve(first, origin("first", got));
    bed.allow(alice, [first]);
    const url = await ask(`GET http://${first}:${bed.port}/x HTTP/1.1`, `Host: ${first}:${bed.port}`);
    await url.until(/<first \/x >/);
    expect(got[0]!.rawHeaders.slice(0, 2)).toEqual(["Host", `${first}:${bed.port}`]);
    expect(bed.log()).toEqual([`${first} ${first} allowed allow ${first}`]);
    const tunnel = await ask(`CONNECT ${first}:443 HTTP/1.1`);
    await tunnel.until(/\r\n\r\n$/);
    tunnel.socket.write(crlf("GET /y HTTP/1.1", "Host: any", ""));
    await tunnel.until(/<first \/y >/);
    bed.allow(alice, ["a.test"]);
    await tunnel.closed;
    expect(tunnel.error?.code).toBe("ECONNRESET");
  });

  it("reaches an address of IPv6, in brackets", async () => {
    const got: Got[] = [];
    await bed.serve("::1", origin("sixth", got));
    bed.allow(alice, ["::1"]);
    const peer = await ask(`GET http://[0:0::1]:${bed.port}/ HTTP/1.1`, `Host: [::1]:${bed.port}`);
    await peer.until(/502 Bad Gateway/); // servers are tried by IPv4 alone, unless it is told otherwise
    await using wide = await makeSecretBed([], {}, { ipv6: true });
    await wide.serve("::1", origin("sixth", got));
    wide.allow(alice, ["::1"]);
    const other = await connectFrom(alice, wide.explicitPort);
    other.socket.write(crlf(`GET http://[0:0::1]:${wide.port}/ HTTP/1.1`, `Host: [::1]:${wide.port}`, ""));
    await other.until(/<sixth \/ >/);
    expect(got[0]!.rawHeaders.slice(0, 2)).toEqual(["Host", `[::1]:${wide.port}`]);
  });

  it("does not get the secret to an address", async () => {
    const got: Got[] = [];
    await bed.serve(first, origin("first", got));
    bed.clients.set(alice, { ...bed.clients.get(alice)!, policy: new FakePolicy([first]) });
    const peer = await ask(`GET http://${first}/ HTTP/1.1`, `Host: ${first}`, `X-Token: ${placeholder}`);
    await peer.until(/403 Forbidden[^]*squash: Cannot send the placeholder of secret "TOKEN"/);
    expect(got.length).toBe(0);
  });

  it("gets the secret in plain HTTP where it says so", async () => {
    const got: Got[] = [];
    await bed.serve(first, origin("first", got));
    bed.grant(alice, [secret({ allowPlaintext: true })]);
    const peer = await ask("GET http://a.test/ HTTP/1.1", "Host: a.test", `X-Token: ${placeholder}`);
    await peer.until(/<first/);
    expect(got[0]!.rawHeaders).toContain(value);
  });
});

describe("the proxy refuses", () => {
  it.each([
    ["a name that the policy does not allow", "CONNECT c.test:443 HTTP/1.1", "403", "not listed"],
    ["a name that the policy does not allow, on another port", "CONNECT c.test:22 HTTP/1.1", "403", "not listed"],
    ["an address that the policy does not allow", "CONNECT 127.0.0.1:443 HTTP/1.1", "403", "not listed"],
    [
      "an address in another notation",
      "CONNECT 0x7f.1:8080 HTTP/1.1",
      "400",
      "not for a name or an address, and a port",
    ],
    ["such an address of IPv6", "CONNECT [::1]:8080 HTTP/1.1", "403", "not listed"],
    ["such an address in a URL", "GET http://127.0.0.1/ HTTP/1.1", "403", "not listed", "127.0.0.1"],
    ["such an address of IPv6 in a URL", "GET http://[::1]/ HTTP/1.1", "403", "not listed", "[::1]"],
    [
      "an address of IPv6 without brackets",
      "CONNECT ::1:443 HTTP/1.1",
      "400",
      "not for a name or an address, and a port",
    ],
    [
      "an address of IPv6 with a zone",
      "CONNECT [fe80::1%25lo]:443 HTTP/1.1",
      "400",
      "not for a name or an address, and a port",
    ],
    [
      "an address of IPv4 in brackets",
      "CONNECT [127.0.0.1]:443 HTTP/1.1",
      "400",
      "not for a name or an address, and a port",
    ],
    ["another address in the Host field", "GET http://127.0.0.1/ HTTP/1.1", "400", "does not agree", "127.0.0.2"],
    ["no port", "CONNECT a.test HTTP/1.1", "400", "not for a name or an address, and a port"],
    ["port 0", "CONNECT a.test:0 HTTP/1.1", "400", "not for a name or an address, and a port"],
    ["port 65536", "CONNECT a.test:65536 HTTP/1.1", "400", "not for a name or an address, and a port"],
    ["a tunnel to where requests are read", "CONNECT a.test:80 HTTP/1.1", "403", "a CONNECT to port 80"],
    ["a tunnel to a resolver", "CONNECT a.test:53 HTTP/1.1", "403", "a CONNECT to port 53"],
    ["a placeholder in the host", `CONNECT ${placeholder}:443 HTTP/1.1`, "403", "not listed"],
    ["a user in the host", "CONNECT u@a.test:443 HTTP/1.1", "400", "not for a name or an address, and a port"],
    ["a URL by TLS", "GET https://a.test/ HTTP/1.1", "400", "not an http URL"],
    ["a mere path", "GET / HTTP/1.1", "400", "not an http URL"],
    ["another Host than in the URL", "GET http://b.test/ HTTP/1.1", "400", "does not agree"],
  ])("%s", async (_, line, status, rule, host = "a.test") => {
    const answer = await refused(line, ...(line.startsWith("CONNECT") ? [] : [`Host: ${host}`, "Connection: close"]));
    expect(answer).toContain(`HTTP/1.1 ${status} `);
    expect(answer).toContain(rule);
    expect(bed.decisions.at(-1)).toMatchObject({ allowed: false });
  });

  it("a name whose address the policy refuses", async () => {
    bed.allow(alice, ["a.test"], [first]);
    expect(await refused(`CONNECT a.test:${bed.port} HTTP/1.1`)).toContain("403 Forbidden");
  });

  it("a CONNECT with a body, one sent ahead of it, and two Host fields", async () => {
    expect(await refused("CONNECT a.test:443 HTTP/1.1", "Content-Length: 5")).toContain(" 400 ");
    expect(await refused("CONNECT a.test:443 HTTP/1.1", "Host: a", "Host: b")).toContain(" 400 ");
  });

  it("another name in TLS than in the CONNECT", async () => {
    const peer = await ask("CONNECT a.test:443 HTTP/1.1");
    await peer.until(/\r\n\r\n$/);
    peer.socket.write(helloFor("b.test"));
    await peer.closed;
    expect([...peer.bytes.subarray(-7)]).toEqual([21, 3, 3, 0, 2, 2, 112]);
    expect(bed.log().at(-1)).toBe("b.test null refused another server name than was asked for");
  });

  it("something other than TLS to port 443, and to wait for it", async () => {
    const peer = await ask("CONNECT a.test:443 HTTP/1.1");
    await peer.until(/\r\n\r\n$/);
    peer.socket.write("GET / HTTP/1.1\r\n\r\n");
    await peer.closed;
    expect(bed.log().at(-1)).toBe("null null refused not a TLS handshake");
    const silent = await ask("CONNECT a.test:443 HTTP/1.1");
    await silent.closed;
    expect(bed.log().at(-1)).toBe("null null refused no ClientHello in time");
  });

  it("who waits on a tunnel whose policy changes", async () => {
    await bed.serve(
      first,
      createServer((socket) => socket.pipe(socket)),
    );
    const peer = await ask(`CONNECT a.test:${bed.port} HTTP/1.1`);
    await peer.until(/\r\n\r\n$/);
    bed.allow(alice, ["b.test"]);
    await peer.closed;
    expect(peer.error?.code).toBe("ECONNRESET");
  });
});
