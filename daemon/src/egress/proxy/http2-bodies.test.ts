import { once } from "node:events";
import { createSecureServer, type ServerHttp2Stream, type ServerHttp2Session } from "node:http2";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { alice, first } from "./testing/proxy-bed.js";
import { makeSecretBed, placeholder, secret, serverContext, value, type SecretBed } from "./testing/secret-bed.js";
import { secureOrigin, type Seen } from "./testing/secure-origin.js";

const mebi = 1_048_576;
const size = 256 * mebi;
/** what a process may grow by: windows of both sides, what is on its way between them, and what is not yet collected */
const most = 128 * mebi;

let bed: SecretBed;
beforeEach(async () => void (bed = await makeSecretBed()));
afterEach(() => bed[Symbol.asyncDispose]());

async function serve(each: (stream: ServerHttp2Stream) => void): Promise<void> {
  const server = createSecureServer({ SNICallback: (_, done) => done(null, serverContext("a.test")) });
  server.on("secureConnection", (socket) => void socket.on("error", () => undefined));
  server.on("session", (session: ServerHttp2Session) => session.on("error", () => undefined));
  server.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => undefined);
    each(stream);
  });
  await bed.serve(first, server);
}

/** How much larger the process was at its largest than when this was called. */
function watchMemory(): { grown(): number } {
  const before = process.memoryUsage().rss;
  let largest = before;
  const timer = setInterval(() => (largest = Math.max(largest, process.memoryUsage().rss)), 20);
  return {
    grown() {
      clearInterval(timer);
      return largest - before;
    },
  };
}

/** Whether a text is in what comes, also where that is cut within it. */
function finder(text: string): { look(chunk: Buffer): void; found: boolean } {
  let before: Buffer = Buffer.alloc(0);
  return {
    found: false,
    look(chunk) {
      this.found ||= Buffer.concat([before, chunk.subarray(0, text.length)]).includes(text) || chunk.includes(text);
      before = chunk.subarray(-text.length);
    },
  };
}

/** Writes 256 MiB as fast as they are taken, with `mark` in the middle. */
async function pour(
  to: { write(bytes: Buffer): boolean; end(): void } & NodeJS.EventEmitter,
  mark: string,
): Promise<void> {
  const block = Buffer.alloc(mebi / 4, "text that is no secret, ");
  for (let sent = 0; sent < size; sent += block.length) {
    const bytes = sent === size / 2 ? Buffer.concat([block, Buffer.from(mark)]).subarray(mark.length) : block;
    if (!to.write(bytes)) await once(to, "drain");
  }
  to.end();
}

describe("a body with a placeholder where none may stand", () => {
  it("is refused though there is no connection to its server yet", async () => {
    let received = 0;
    let whole = false;
    await serve((stream) => {
      stream.on("data", (chunk: Buffer) => (received += chunk.length));
      stream.on("end", () => (whole = stream.rstCode === 0));
    });
    bed.grant(alice, [secret({ locations: ["header"] })]);
    bed.names.set("a.test", () => new Promise((resolve) => setTimeout(() => resolve([first]), 300)));
    const stream = (await bed.http2("a.test")).request(
      { ":method": "POST", ":authority": "a.test", ":path": "/" },
      { endStream: false },
    );
    stream.on("error", () => undefined);
    stream.end(`with ${placeholder}`);
    const [answered] = (await once(stream, "response")) as [Record<string, unknown>];
    expect(answered[":status"]).toBe(403);
    await new Promise((resolve) => setTimeout(resolve, 400)); // by now it would be connected
    expect([received, whole]).toEqual([0, false]);
    expect(bed.uses).toMatchObject([{ secret: "TOKEN", allowed: false, locations: ["body"] }]);
  });
});

describe("such a body by HTTP/1.1", () => {
  it("is refused though it was sent ahead, with all of its request", async () => {
    const seen: Seen[] = [];
    await bed.serve(first, secureOrigin("a.test", seen));
    bed.grant(alice, [secret({ locations: ["header"] })]);
    const peer = await bed.secure("a.test");
    const body = `with ${placeholder}`;
    const lines = (...text: string[]): string => [...text, "", ""].join("\r\n");
    const post = lines("POST / HTTP/1.1", "Host: a.test", `Content-Length: ${body.length}`) + body;
    peer.socket.write(lines("GET / HTTP/1.1", "Host: a.test") + post);
    await peer.until(/<ok[^]* 403 Forbidden[^]*Cannot send the placeholder of secret "TOKEN"/);
    expect(seen.length).toBe(1);
  });
});

describe("bodies of 256 MiB by HTTP/2 on both sides", () => {
  it("go up in bounded memory, with the secret in them", async () => {
    let received = 0;
    const real = finder(value);
    await serve((stream) => {
      stream.on("data", (chunk: Buffer) => {
        received += chunk.length;
        real.look(chunk);
      });
      stream.on("end", () => {
        stream.respond({ ":status": 200 });
        stream.end(String(received));
      });
    });
    const session = await bed.http2("a.test");
    const memory = watchMemory();
    const stream = session.request({ ":method": "POST", ":authority": "a.test", ":path": "/" }, { endStream: false });
    let body = "";
    stream.on("data", (chunk: Buffer) => (body += chunk.toString()));
    await pour(stream, placeholder);
    await once(stream, "end");
    expect(memory.grown()).toBeLessThan(most);
    expect([received, body, real.found]).toEqual([size + value.length - placeholder.length, String(received), true]);
  }, 60_000);

  it("come down in bounded memory, without the secret in them", async () => {
    await serve((stream) => {
      stream.respond({ ":status": 200 });
      void pour(stream, value);
    });
    const session = await bed.http2("a.test");
    const memory = watchMemory();
    const stream = session.request({ ":authority": "a.test", ":path": "/" });
    let received = 0;
    const [told, hidden] = [finder(value), finder(placeholder)];
    stream.on("data", (chunk: Buffer) => {
      received += chunk.length;
      told.look(chunk);
      hidden.look(chunk);
    });
    await once(stream, "end");
    expect(memory.grown()).toBeLessThan(most);
    expect([received, told.found, hidden.found]).toEqual([size - value.length + placeholder.length, false, true]);
  }, 60_000);

  it("wait for who reads them", async () => {
    let sent = 0;
    await serve((stream) => {
      stream.respond({ ":status": 200 });
      const block = Buffer.alloc(mebi / 4);
      const go = (): void => {
        while (sent < size && !stream.destroyed) {
          sent += block.length;
          if (!stream.write(block)) return void stream.once("drain", go);
        }
      };
      go();
    });
    const session = await bed.http2("a.test");
    const stream = session.request({ ":authority": "a.test", ":path": "/" });
    stream.on("error", () => undefined);
    await once(stream, "response");
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(sent).toBeLessThan(16 * mebi);
    stream.close(8);
  });
});
