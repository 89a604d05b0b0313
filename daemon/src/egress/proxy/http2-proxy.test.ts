import { once } from "node:events";
import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import type { ServerResponse } from "node:http";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { first } from "./testing/proxy-bed.js";
import { makeSecretBed, placeholder, secret, value, type SecretBed } from "./testing/secret-bed.js";
import { secureOrigin, type Answer, type Seen } from "./testing/secure-origin.js";

let bed: SecretBed;
let seen: Seen[];
beforeEach(async () => {
  seen = [];
  bed = await makeSecretBed([secret()], { connect: 3_000, answer: 500, headers: 300, keep: 300 });
});
afterEach(() => bed[Symbol.asyncDispose]());

interface Got {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  readonly body: string;
  readonly trailers: Record<string, unknown>;
  readonly code: number;
  readonly informed: number[];
}

async function asked(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  send: ((stream: ClientHttp2Stream) => void) | null = null,
  options: { waitForTrailers?: boolean } = {},
): Promise<Got> {
  const stream = session.request(
    { ":authority": "a.test", ":path": "/", ...headers },
    { endStream: send === null, ...options },
  );
  const informed: number[] = [];
  let [status, answered, trailers] = [0, {} as Record<string, unknown>, {} as Record<string, unknown>];
  let body = "";
  stream.on("headers", (fields) => informed.push(Number(fields[":status"])));
  stream.on("response", (fields) => {
    status = Number(fields[":status"]);
    answered = fields;
  });
  stream.on("trailers", (fields: Record<string, unknown>) => {
    trailers = fields;
  });
  stream.on("data", (chunk: Buffer) => (body += chunk.toString("latin1")));
  stream.on("error", () => undefined);
  send?.(stream);
  await new Promise((resolve) => stream.once("close", resolve));
  return { status, headers: answered, body, trailers, code: stream.rstCode, informed };
}

describe.each([
  ["HTTP/2", true],
  ["HTTP/1.1", false],
])("HTTP/2 to a server that speaks %s", (_, h2) => {
  const serve = (answer?: Answer): Promise<void> =>
    bed.serve(first, secureOrigin("a.test", seen, { h2, ...(answer === undefined ? {} : { answer }) }));

  it("puts the value in, whatever the field, and takes it out of what comes back", async () => {
    await serve((request, response) => {
      (response as ServerResponse).setHeader("x-echo", `you sent ${String(request.headers["x-token"])}`);
      (response as ServerResponse).end(`<${String(request.headers["x-token"])}>`);
    });
    const session = await bed.http2("a.test");
    const got = await asked(session, { "x-token": placeholder, cookie: ["a=1", "b=2"] });
    expect(seen[0]).toMatchObject({ line: "GET /", version: h2 ? "2.0" : "1.1" });
    expect(seen[0]!.headers).toMatchObject({ "x-token": value, cookie: "a=1; b=2" });
    expect(got).toMatchObject({
      status: 200,
      body: `<${placeholder}>`,
      headers: { "x-echo": `you sent ${placeholder}` },
    });
  });

  it("carries many requests at once, over one connection each way where it can", async () => {
    await serve();
    const session = await bed.http2("a.test");
    const all = await Promise.all(Array.from({ length: 50 }, (_, index) => asked(session, { ":path": `/${index}` })));
    expect(all.map(({ body }) => body)).toEqual(Array.from({ length: 50 }, (_, index) => `<ok /${index} >`));
  });

  it("carries bodies and trailers both ways", async () => {
    await serve((_, response, body) => {
      const answer = response as ServerResponse;
      answer.setHeader("trailer", "x-sum");
      answer.write(`<${body}`);
      answer.addTrailers({ "x-sum": "7" });
      answer.end(">");
    });
    const session = await bed.http2("a.test");
    const got = await asked(
      session,
      { ":method": "POST", te: "trailers" },
      (stream) => {
        stream.on("wantTrailers", () => stream.sendTrailers({ "x-grade": "good" }));
        stream.write("one ");
        stream.end(placeholder);
      },
      { waitForTrailers: true },
    );
    expect(got.body).toBe(`<one ${placeholder}>`);
    expect(got.trailers).toMatchObject({ "x-sum": "7" });
    expect(seen[0]).toMatchObject({ line: "POST /", body: `one ${value}`, trailers: { "x-grade": "good" } });
  });

  it("carries the trailers of an answer whose end comes right with them", async () => {
    await serve((request, response) => {
      const answer = response as ServerResponse;
      answer.writeHead(200, { trailer: "x-sum", "content-type": "text/plain" });
      answer.write("all of it");
      answer.addTrailers({ "x-sum": String(request.headers["x-token"]) });
      answer.end();
    });
    const session = await bed.http2("a.test");
    for (let count = 0; count < 20; count++) {
      const got = await asked(session, { te: "trailers", "x-token": placeholder });
      expect(got.body).toBe("all of it");
      expect(got.trailers).toMatchObject({ "x-sum": placeholder });
    }
  });

  it("answers 421 to another :authority than that of TLS, 400 to two that differ, and goes on", async () => {
    await serve();
    const session = await bed.http2("a.test");
    for (const authority of ["b.test", "c.test", "a.test.evil.test"]) {
      expect((await asked(session, { ":authority": authority })).status).toBe(421);
    }
    expect((await asked(session, { ":authority": "a.test:444" })).status).toBe(400);
    expect((await asked(session, { host: "b.test" })).status).toBe(421);
    expect((await asked(session, { ":scheme": "http" })).status).toBe(400);
    expect((await asked(session, {})).status).toBe(200);
    expect(seen.length).toBe(1);
    expect(bed.decisions.filter(({ allowed }) => !allowed).length).toBe(6);
  });

  it("refuses a placeholder that is not for the place, and says what is to be done", async () => {
    await serve();
    bed.grant("127.0.0.11", [secret({ locations: ["basic"] })]);
    const session = await bed.http2("a.test");
    const got = await asked(session, { "x-token": placeholder });
    expect(got.status).toBe(403);
    expect(got.body).toMatch(/^squash: Cannot send the placeholder of secret "TOKEN" in the header/);
    expect(seen).toEqual([]);
    expect(bed.uses).toMatchObject([{ secret: "TOKEN", allowed: false, status: null }]);
    expect(bed.log().at(-1)).toMatch(/^a\.test null refused secret TOKEN: /);
  });

  it("never takes half an answer for a whole one", async () => {
    await serve((_, response) => {
      (response as ServerResponse).write("half");
      setTimeout(
        () =>
          (
            (response as { stream?: { session?: { destroy(): void } } }).stream?.session ??
            (response as ServerResponse).socket
          )?.destroy(),
        50,
      );
    });
    const got = await asked(await bed.http2("a.test"), {});
    expect(got.code).not.toBe(0);
  });

  it("is a 504 where the server does not answer", async () => {
    await serve(() => undefined);
    const got = await asked(await bed.http2("a.test"), {});
    expect(got.status).toBe(504);
    expect(got.body).toBe("squash: cannot reach a.test (no answer in time)\n");
  });
});

describe("a client by HTTP/2", () => {
  beforeEach(() => bed.serve(first, secureOrigin("a.test", seen, { h2: true, answer: () => undefined })));

  it("is cut off when it gives up request after request", async () => {
    const session = await bed.http2("a.test");
    const isOpen = (): boolean => !session.destroyed;
    for (let round = 0; round < 20 && isOpen(); round += 1) {
      for (let index = 0; index < 50 && isOpen(); index += 1) {
        const stream = session.request({ ":authority": "a.test", ":path": "/" });
        stream.on("error", () => undefined);
        setTimeout(() => stream.close(8), 5);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await expect.poll(() => bed.log().at(-1)).toBe("a.test null refused too many requests given up");
    expect(bed.proxy.counters("127.0.0.11")).toMatchObject({ open: 0, refused: 1 });
    session.destroy();
  });

  it("has no more than 100 requests under way", async () => {
    const session = await bed.http2("a.test");
    if (session.remoteSettings.maxConcurrentStreams === undefined) await once(session, "remoteSettings");
    expect(session.remoteSettings.maxConcurrentStreams).toBe(100);
  });

  it("that asks for nothing is disconnected when its time is over, whatever else it sends", async () => {
    const session = await bed.http2("a.test");
    const ping = setInterval(() => {
      if (!session.destroyed) session.ping(() => undefined);
    }, 30);
    const before = performance.now();
    await once(session, "close");
    clearInterval(ping);
    expect(performance.now() - before).toBeLessThan(2_000);
  });

  it("with too long a header list gets no answer but an error", async () => {
    const session = await bed.http2("a.test");
    const got = await Promise.race([
      asked(session, Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`x-${index}`, "v".repeat(4_000)]))),
      once(session, "close").then(() => null),
    ]);
    expect(got?.status ?? 0).toBe(0);
    expect(got?.code).not.toBe(0);
    expect(seen).toEqual([]);
  });
});
