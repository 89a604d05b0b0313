import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { Client, SquashError } from "./client.js";
import { jobEvents } from "./job-events.js";

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  }
});

async function daemon(answer: RequestListener): Promise<Client> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return new Client({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
}

async function* pieces(count: number, sent: { count: number }): AsyncGenerator<Uint8Array> {
  for (; sent.count < count; sent.count++) yield await Promise.resolve(Buffer.alloc(65_536, "x"));
}

const sha256 = "0".repeat(64);

describe("an upload", () => {
  it("is sent as it comes, with its length where that is known", async () => {
    const seen: unknown[] = [];
    const client = await daemon((request, response) => {
      let size = 0;
      request.on("data", (chunk: Buffer) => (size += chunk.length));
      request.on("end", () => {
        const { "content-length": length, "content-type": type } = request.headers;
        seen.push([request.method, request.url, type, length, size]);
        response.setHeader("content-type", "application/json").end('{"name":"a"}');
      });
    });
    const bytes = 20 * 65_536;
    const image = { content: pieces(20, { count: 0 }), size: bytes, sha256 };
    expect(await client.putModule("a", image, { requires: ["b"] })).toEqual({ name: "a" });
    await client.startTarJob("c", { content: pieces(20, { count: 0 }), sha256 }, { replace: true });
    const type = "application/octet-stream";
    expect(seen).toEqual([
      ["PUT", `/v1/modules/a?sha256=${sha256}&requires=b`, type, String(bytes), bytes],
      ["POST", `/v1/jobs/from-tar?sha256=${sha256}&replace=true&name=c`, type, undefined, bytes],
    ]);
  });

  it("that is refused before it ends is broken off, with the daemon's reason", async () => {
    const client = await daemon((_, response) => {
      response.writeHead(409, { "content-type": "application/json" });
      response.end('{"error":"there is one","code":"module_exists"}');
    });
    const sent = { count: 0 };
    const image = { content: pieces(100_000, sent), sha256 };
    await expect(client.putModule("a", image)).rejects.toMatchObject({
      code: "module_exists",
      message: "there is one",
    });
    expect(sent.count).toBeLessThan(100_000);
  });

  it("whose source fails, fails for that reason", async () => {
    const client = await daemon((request) => request.resume());
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(Buffer.from("x"));
      throw new SquashError("invalid_request", "the disk is gone");
    }
    await expect(client.putModule("a", { content: broken(), sha256 })).rejects.toThrow(/the disk is gone/);
  });
});

describe("jobEvents()", () => {
  async function read(...chunks: string[]): Promise<string[]> {
    async function* content(): AsyncGenerator<Uint8Array> {
      for (const chunk of chunks) yield await Promise.resolve(Buffer.from(chunk, "latin1"));
    }
    const states: string[] = [];
    for await (const job of jobEvents(content())) states.push(job.state);
    return states;
  }

  it("reads events however they are cut, and passes over what is none", async () => {
    const text =
      'event: progress\ndata: {"state":"running"}\n\n: still here\n\ndata: {\n\ndata: 3\n\ndata: {"state":"done"}\n\n';
    expect(await read(text)).toEqual(["running", "done"]);
    expect(await read(...text.split(""))).toEqual(["running", "done"]);
    expect(await read('data: {"state":"running"}')).toEqual([]);
  });

  it("gives up what never ends", async () => {
    expect(await read("x".repeat(2_000_000), 'data: {"state":"done"}\n\n')).toEqual([]);
  });
});
