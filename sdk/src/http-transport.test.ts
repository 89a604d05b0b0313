import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import http, { type RequestListener } from "node:http";
import net, { type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";

import { ConnectionError } from "./connection-error.js";
import { HttpTransport } from "./http-transport.js";

const closers: (() => Promise<unknown> | void)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

async function listen(server: net.Server, path?: string): Promise<string> {
  if (path === undefined) server.listen(0, "127.0.0.1");
  else server.listen(path);
  await once(server, "listening");
  closers.push(() => void server.close());
  if (path !== undefined) return `unix:${path}`;
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function serve(listener: RequestListener, path?: string): Promise<string> {
  const server = http.createServer(listener);
  const url = await listen(server, path);
  closers.push(() => server.closeAllConnections());
  return url;
}

function transportTo(url: string, options: { limitBytes?: number } = {}): HttpTransport {
  const transport = new HttpTransport(url, options);
  closers.push(() => transport.close());
  return transport;
}

async function temporaryDirectory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "squash-sdk-"));
  closers.push(() => rm(path, { recursive: true }));
  return path;
}

const get = { method: "GET", path: "/x", headers: {} } as const;
const hang: RequestListener = () => undefined;

/** Serves as `serve` does; `closed` resolves when the client closes a connection. */
async function watch(listener: RequestListener): Promise<{ url: string; closed: Promise<void> }> {
  let report = (): void => undefined;
  const closed = new Promise<void>((resolve) => (report = resolve));
  const url = await serve((request, response) => {
    request.socket.on("close", report);
    listener(request, response);
  });
  return { url, closed };
}

describe("HttpTransport", () => {
  it("sends method, path, headers and body, and returns any status", async () => {
    const url = await serve((request, response) => {
      let body = "";
      request.on("data", (chunk) => (body += chunk));
      request.on("end", () => {
        response.writeHead(418, { "content-type": "Text/Plain; charset=utf-8" });
        response.end(`${request.method} ${request.url} ${request.headers["x-a"]} ${body}`);
      });
    });
    const reply = await transportTo(`${url}/prefix/`).send({
      method: "POST",
      path: "/x",
      headers: { "x-a": "1" },
      body: "ü",
    });
    expect(reply).toEqual({ status: 418, contentType: "text/plain", text: "POST /prefix/x 1 ü" });
  });

  it("talks to a unix socket", async () => {
    const url = await serve((_, response) => response.end("hello"), join(await temporaryDirectory(), "api.sock"));
    expect(await transportTo(url).send(get)).toMatchObject({ status: 200, text: "hello" });
  });

  it("uses one connection for successive requests", async () => {
    const ports = new Set<number | undefined>();
    const url = await serve((request, response) => {
      ports.add(request.socket.remotePort);
      response.end();
    });
    const transport = transportTo(url);
    for (let i = 0; i < 3; i++) await transport.send(get);
    expect(ports.size).toBe(1);
  });

  it("repeats a GET whose kept connection the daemon had closed, but not a POST", async () => {
    let requests = 0;
    const url = await serve((request, response) => {
      requests += 1;
      if (requests % 2 === 0) request.socket.destroy();
      else response.end("ok");
    });
    const transport = transportTo(url);
    await transport.send(get);
    expect(await transport.send(get)).toMatchObject({ text: "ok" });
    expect(requests).toBe(3);
    await expect(transport.send({ ...get, method: "POST", body: "" })).rejects.toThrow(ConnectionError);
    expect(requests).toBe(4);
  });

  it("says where nothing listens and what to check", async () => {
    const server = net.createServer();
    const url = await listen(server);
    server.close();
    await expect(transportTo(url).send(get)).rejects.toThrow(
      `Cannot GET /x at "${url}": nothing listens there; is squashd running? (ECONNREFUSED)`,
    );
  });

  it("says that a unix socket is missing", async () => {
    const url = `unix:${await temporaryDirectory()}/none.sock`;
    const error = await transportTo(url)
      .send(get)
      .catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(ConnectionError);
    expect(error).toMatchObject({ address: url, message: expect.stringContaining("there is no such socket") });
  });

  it("throws when the connection closes in the middle of the answer", async () => {
    const url = await serve((_, response) => {
      response.writeHead(200, { "content-length": "10" });
      response.write("abc", () => response.destroy());
    });
    await expect(transportTo(url).send(get)).rejects.toThrow(/before the answer was complete/);
  });

  it("throws for a peer that does not speak HTTP", async () => {
    const url = await listen(net.createServer((socket) => socket.end("SSH-2.0-OpenSSH\r\n")));
    await expect(transportTo(url).send(get)).rejects.toThrow(/Cannot GET \/x.*\(HPE_/);
  });

  it("throws the signal's reason and closes the connection when aborted before the answer", async () => {
    const { url, closed } = await watch(hang);
    const controller = new AbortController();
    const reason = new Error("enough");
    const sent = transportTo(url).send({ ...get, signal: controller.signal });
    setTimeout(() => controller.abort(reason), 30);
    await expect(sent).rejects.toBe(reason);
    await closed;
  });

  it("throws the signal's reason and closes the connection when aborted in the middle of the answer", async () => {
    const controller = new AbortController();
    const { url, closed } = await watch((_, response) => {
      response.write("abc", () => setTimeout(() => controller.abort(), 30));
    });
    await expect(transportTo(url).send({ ...get, signal: controller.signal })).rejects.toMatchObject({
      name: "AbortError",
    });
    await closed;
  });

  it("sends nothing when aborted already", async () => {
    const url = await serve(() => expect.unreachable());
    await expect(transportTo(url).send({ ...get, signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: "AbortError",
    });
  });

  it("leaves no listener on a signal that outlives the request", async () => {
    const url = await serve((_, response) => response.end());
    const { signal } = new AbortController();
    let listeners = 0;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: Parameters<AbortSignal["addEventListener"]>) => {
      listeners += 1;
      addEventListener.apply(signal, args);
    };
    signal.removeEventListener = (...args: Parameters<AbortSignal["removeEventListener"]>) => {
      listeners -= 1;
      removeEventListener.apply(signal, args);
    };
    await transportTo(url).send({ ...get, signal });
    expect(listeners).toBe(0);
  });

  it("gives up at the deadline", async () => {
    const url = await serve(hang);
    const sent = transportTo(url).send({ ...get, deadlineMs: 30 });
    await expect(sent).rejects.toThrow(`Cannot GET /x at "${url}": no answer within 30 ms`);
  });

  it("waits without limit for a deadline that a timer cannot hold", async () => {
    const url = await serve((_, response) => void setTimeout(() => response.end("late"), 50));
    expect(await transportTo(url).send({ ...get, deadlineMs: Infinity })).toMatchObject({ text: "late" });
  });

  it("reads no more than its limit", async () => {
    const url = await serve((_, response) => response.end("x".repeat(11)));
    expect((await transportTo(url, { limitBytes: 11 }).send(get)).text).toHaveLength(11);
    await expect(transportTo(url, { limitBytes: 10 }).send(get)).rejects.toThrow(/larger than 10 bytes/);
  });
});
