import type { Socket } from "node:net";
import { createServer, type TLSSocket } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { alice, first } from "./testing/proxy-bed.js";
import { makeSecretBed, serverContext, type SecretBed } from "./testing/secret-bed.js";

let bed: SecretBed;
/** the connections that the server has */
let arrived: TLSSocket[];
let received: string;
/** what the server's end of TCP has of the connections that are there */
let carriers: Set<Socket>;
beforeEach(async () => {
  bed = await makeSecretBed();
  arrived = [];
  received = "";
  carriers = new Set();
  const server = createServer(
    { SNICallback: (_, done) => done(null, serverContext("a.test")), ALPNProtocols: ["http/1.1"] },
    (socket) => {
      arrived.push(socket);
      socket.on("error", () => undefined);
      socket.on("data", (chunk: Buffer) => {
        received += chunk.toString("latin1");
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ok>");
      });
    },
  );
  server.on("tlsClientError", () => undefined);
  server.on("connection", (socket: Socket) => {
    carriers.add(socket);
    socket.once("close", () => carriers.delete(socket));
  });
  await bed.serve(first, server);
});
afterEach(() => bed[Symbol.asyncDispose]());

const get = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

describe("a connection that is made before there is a request for it", () => {
  it("carries the first request, and nothing before", async () => {
    const peer = await bed.secure("a.test");
    await expect.poll(() => arrived.length).toBe(1);
    expect(received).toBe("");
    peer.socket.write(get);
    await peer.until(/<ok>/);
    expect(arrived).toHaveLength(1);
  });

  it("is not made while another one is free", async () => {
    const before = await bed.secure("a.test");
    before.socket.write(get);
    await before.until(/<ok>/);
    const peer = await bed.secure("a.test");
    peer.socket.write(get);
    await peer.until(/<ok>/);
    expect(arrived).toHaveLength(1);
  });

  it("goes with its client", async () => {
    const peer = await bed.secure("a.test");
    await expect.poll(() => arrived.length).toBe(1);
    peer.socket.destroy();
    await expect.poll(() => carriers.size).toBe(0);
  });

  it("goes when the policy no longer allows it", async () => {
    await bed.secure("a.test");
    await expect.poll(() => arrived.length).toBe(1);
    bed.allow(alice, ["b.test"]);
    await expect.poll(() => carriers.size).toBe(0);
    expect(bed.log().at(-1)).toMatch(/^a\.test 127\.0\.1\.1 refused/);
  });

  it("is replaced where the server has ended it", async () => {
    const peer = await bed.secure("a.test");
    await expect.poll(() => arrived.length).toBe(1);
    arrived[0]!.destroy();
    await expect.poll(() => carriers.size).toBe(0);
    peer.socket.write(get);
    await peer.until(/<ok>/);
    expect(arrived).toHaveLength(2);
  });

  it("that failed does not keep the request from another one", async () => {
    bed.names.set("a.test", () => []);
    const peer = await bed.secure("a.test");
    await new Promise((resolve) => setTimeout(resolve, 50)); // what was tried has failed by now
    bed.names.set("a.test", () => [first]);
    peer.socket.write(get);
    await peer.until(/<ok>/);
    expect(arrived).toHaveLength(1);
  });
});
