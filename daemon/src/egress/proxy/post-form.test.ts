import { once } from "node:events";
import { createServer, type Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createSecureContext, type SecureContext } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makePair } from "../../secrets/ca/authority-pair.js";
import { LeafIssuer } from "../tls/leaf-issuer.js";
import { FakePolicy } from "./testing/fake-policy.js";
import { postForm, type PostFormOptions } from "./post-form.js";
import { serverAuthority, serverContext } from "./testing/secret-bed.js";

const servers: Server[] = [];
let seen: { line: string; host: string | undefined; body: string; from: string | undefined }[];
let answer: (response: ServerResponse) => void;
beforeEach(() => {
  seen = [];
  answer = (response) => void response.end("<token>");
});
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** A server of tokens; the port that it has. */
async function serve(address = "127.0.0.1", context: SecureContext = serverContext("token.test")): Promise<number> {
  const server = createServer(
    { SNICallback: (_, done) => done(null, context) },
    (request: IncomingMessage, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += chunk.toString()));
      request.on("end", () => {
        const { method, url, headers, socket } = request;
        seen.push({ line: `${method} ${url}`, host: headers.host, body, from: socket.remoteFamily });
        answer(response);
      });
    },
  );
  server.on("tlsClientError", () => undefined);
  servers.push(server);
  server.listen({ host: address, port: 0 });
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

const names: Record<string, string> = { 4: "127.0.0.1", 6: "::1" };
function post(
  port: number,
  url: string,
  options: Partial<PostFormOptions> = {},
): Promise<{ status: number; body: string }> {
  const trusted = createSecureContext({ ca: serverAuthority.certificatePem });
  const send = postForm({
    resolve: (_, family) => Promise.resolve([names[family] ?? ""]),
    policy: new FakePolicy([]),
    trusted: () => trusted,
    portOf: () => port,
    ...options,
  });
  const headers = { "Content-Type": "application/x-www-form-urlencoded" };
  return send(url, "grant_type=x", { headers, signal: AbortSignal.timeout(2_000) });
}

describe("a form for a server of tokens", () => {
  it("is sent to the path and query of its URL, and its answer given back", async () => {
    const port = await serve();
    answer = (response) => void response.writeHead(400).end("<no>");
    expect(await post(port, "https://token.test/a/b?c=d")).toEqual({ status: 400, body: "<no>" });
    expect(seen).toEqual([{ line: "POST /a/b?c=d", host: `token.test:${port}`, body: "grant_type=x", from: "IPv4" }]);
  });

  it("goes by IPv6 where that is all there is, if sandboxes have it", async () => {
    const port = await serve("::1");
    const only6 = (_: string, family: number): Promise<string[]> =>
      family === 6 ? Promise.resolve(["::1"]) : Promise.reject(new Error("none"));
    expect(await post(port, "https://token.test/", { resolve: only6, ipv6: true })).toMatchObject({ status: 200 });
    expect(seen[0]!.from).toBe("IPv6");
    await expect(post(port, "https://token.test/", { resolve: only6 })).rejects.toThrow("it has no public address");
  });

  it("goes to the other family where the first does not answer", async () => {
    const port = await serve("::1");
    expect(await post(port, "https://token.test/", { ipv6: true })).toMatchObject({ status: 200 });
  });

  it.each([
    ["whose addresses are closed", "https://token.test/", ["127.0.0.1", "::1"]],
    ["that is a closed address", "https://127.0.0.1/", ["127.0.0.1"]],
    ["that is a closed address of IPv6", "https://[::1]/", ["::1"]],
  ])("goes to no host %s", async (_, url, refused) => {
    const port = await serve(url.includes("[") ? "::1" : "127.0.0.1");
    const closed = post(port, url, { policy: new FakePolicy([], refused), ipv6: true });
    await expect(closed).rejects.toThrow("it has no public address");
    expect(seen).toEqual([]);
  });

  it.each([
    ["for another name", (): SecureContext => serverContext("other.test")],
    ["of a stranger's", (): SecureContext => new LeafIssuer(makePair()).contextFor("token.test")],
  ])("goes to no server with a certificate %s", async (_, context) => {
    await expect(post(await serve("127.0.0.1", context()), "https://token.test/")).rejects.toThrow();
    expect(seen).toEqual([]);
  });

  it("follows no redirect, and takes no answer without end", async () => {
    const port = await serve();
    answer = (response) => void response.writeHead(302, { Location: "https://token.test/x" }).end();
    expect(await post(port, "https://token.test/")).toMatchObject({ status: 302 });
    expect(seen.length).toBe(1);
    answer = (response) => {
      const more = (): void => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536)));
        response.once("drain", more);
      };
      more();
    };
    await expect(post(port, "https://token.test/")).rejects.toThrow("its answer is too long");
  });

  it("ends when its time is over, or the server goes away", async () => {
    const port = await serve();
    answer = () => undefined;
    await expect(post(port, "https://token.test/")).rejects.toThrow();
    answer = (response) => void response.socket?.destroy();
    await expect(post(port, "https://token.test/")).rejects.toThrow();
  });
});
