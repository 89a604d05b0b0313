import { once } from "node:events";
import type { ClientHttp2Session } from "node:http2";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { alice, first, second } from "./testing/proxy-bed.js";
import { makeSecretBed, placeholder, secret, type SecretBed } from "./testing/secret-bed.js";
import { secureOrigin, type Seen } from "./testing/secure-origin.js";
import {
  contentLength10,
  flag,
  frame,
  indexedField,
  informational,
  ok,
  plainField,
  rawHttp2,
  type,
} from "./testing/raw-http2.js";

let bed: SecretBed;
beforeEach(async () => {
  bed = await makeSecretBed([secret({ allowedHosts: ["a.test", "b.test"] })], { connect: 3_000, answer: 1_000 });
});
afterEach(() => bed[Symbol.asyncDispose]());

interface Got {
  readonly status: number;
  readonly body: number;
  /** 0 where the answer came to a proper end */
  readonly code: number;
}

/** What a client gets, which gives up after a while. */
async function ask(session: ClientHttp2Session, name: string): Promise<Got> {
  const stream = session.request({ ":authority": name, ":path": "/", "x-token": placeholder });
  let [status, body, ended] = [0, 0, false];
  stream.on("response", (fields) => (status = Number(fields[":status"])));
  stream.on("data", (chunk: Buffer) => (body += chunk.length));
  stream.on("end", () => (ended = true));
  stream.on("error", () => undefined);
  const timer = setTimeout(() => stream.close(8), 1_500);
  await new Promise((resolve) => stream.once("close", resolve));
  clearTimeout(timer);
  return { status, body, code: stream.rstCode === 0 && !ended ? -1 : stream.rstCode };
}

const repeated = (bytes: Buffer, times = 64): (() => Buffer) => {
  const all = Buffer.concat(Array.from({ length: times }, () => bytes));
  return () => all;
};
const block = Buffer.concat(Array.from({ length: 4 }, () => plainField("x-fill", "f".repeat(3_900))));
const head = frame(type.headers, flag.endHeaders, 1, ok);
let next = 2;

/** What a server answers to the first request of a connection; functions are called for more as long as it takes any. */
const attacks: [string, readonly (Buffer | (() => Buffer))[]][] = [
  ["fields without end", [frame(type.headers, 0, 1, ok), repeated(frame(type.more, 0, 1, block))]],
  ["empty pieces of a head without end", [frame(type.headers, 0, 1, ok), repeated(frame(type.more, 0, 1))]],
  [
    "a small head that grows beyond all measure when it is read",
    [
      frame(type.headers, 0, 1, Buffer.concat([ok, indexedField("x-bomb", "b".repeat(3_900))])),
      frame(type.more, flag.endHeaders, 1, Buffer.alloc(16_000, 0xbe)),
    ],
  ],
  ["more fields than are taken", [frame(type.headers, flag.endHeaders, 1, Buffer.concat([ok, ...many(1_000)]))]],
  ["informational answers without end", [repeated(frame(type.headers, flag.endHeaders, 1, informational))]],
  ["settings without end", [head, repeated(frame(type.settings, 0, 0, Buffer.from([0, 3, 0, 0, 0, 100])))]],
  ["pings without end", [head, repeated(frame(type.ping, 0, 0, Buffer.alloc(8)))]],
  ["resets without end", [head, repeated(frame(type.reset, 0, 1, Buffer.from([0, 0, 0, 8])))]],
  ["empty pieces of a body without end", [head, repeated(frame(type.data, 0, 1))]],
  ["heads after the head without end", [head, repeated(frame(type.headers, flag.endHeaders, 1, ok))]],
  [
    "promises that nobody wants",
    [() => frame(type.push, flag.endHeaders, 1, Buffer.concat([Buffer.from([0, 0, 0, (next += 2) & 0x7f]), ok]))],
  ],
  ["frames for streams that there are not", [head, repeated(frame(type.data, 0, 99, Buffer.alloc(100)))]],
  ["a window beyond its bounds", [head, frame(type.window, 0, 1, Buffer.from([0x7f, 0xff, 0xff, 0xff]))]],
  ["a frame longer than may be", [head, frame(type.data, 0, 1, Buffer.alloc(17_000))]],
  ["a frame of settings of a wrong length", [head, frame(type.settings, 0, 0, Buffer.alloc(5))]],
  ["a body before its head", [frame(type.data, flag.end, 1, Buffer.from("body"))]],
  [
    "less than it says",
    [
      frame(type.headers, flag.endHeaders, 1, Buffer.concat([ok, contentLength10])),
      frame(type.data, flag.end, 1, Buffer.from("short")),
    ],
  ],
  [
    "more than it says",
    [
      frame(type.headers, flag.endHeaders, 1, Buffer.concat([ok, contentLength10])),
      frame(type.data, flag.end, 1, Buffer.from("longer than that")),
    ],
  ],
  ["another protocol", [Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]],
];

function many(count: number): Buffer[] {
  return Array.from({ length: count }, (_, index) => plainField(`x${index}`, "1"));
}

describe("a server by HTTP/2 that sends", () => {
  it.each(attacks)(
    "%s passes for no whole answer, is read no further, and keeps others from nothing",
    async (_, parts) => {
      const seen: Seen[] = [];
      const raw = rawHttp2("a.test", () => parts);
      await bed.serve(first, raw.server);
      await bed.serve(second, secureOrigin("b.test", seen, { h2: true }));
      const before = process.memoryUsage().rss;
      const got = await ask(await bed.http2("a.test"), "a.test");
      expect(got.status === 200 && got.code === 0).toBe(false);
      expect(raw.sent()).toBeLessThan(16 * 1_048_576);
      expect(process.memoryUsage().rss - before).toBeLessThan(96 * 1_048_576);
      expect(await ask(await bed.http2("b.test"), "b.test")).toMatchObject({ status: 200, code: 0 });
      expect(seen.length).toBe(1);
      bed.proxy.forget(alice);
      await expect.poll(() => raw.open()).toBe(0);
    },
  );

  it("a field with a line break has its answer without it", async () => {
    const fields = Buffer.concat([ok, plainField("x-split", "a\r\nx-other: b"), plainField("x-sound", "c")]);
    const raw = rawHttp2("a.test", (stream) => [frame(type.headers, flag.endHeaders | flag.end, stream, fields)]);
    await bed.serve(first, raw.server);
    const stream = (await bed.http2("a.test")).request({ ":authority": "a.test", ":path": "/" });
    const [answered] = (await once(stream, "response")) as [Record<string, unknown>];
    expect(answered).toMatchObject({ ":status": 200, "x-sound": "c" });
    expect(Object.keys(answered).some((name) => /split|other/.test(name))).toBe(false);
  });

  it("what it must is served, by the same means", async () => {
    const raw = rawHttp2("a.test", (stream) => [
      frame(type.headers, flag.endHeaders, stream, Buffer.concat([ok, contentLength10])),
      frame(type.data, flag.end, stream, Buffer.from("0123456789")),
    ]);
    await bed.serve(first, raw.server);
    const session = await bed.http2("a.test");
    for (let round = 0; round < 3; round += 1)
      expect(await ask(session, "a.test")).toEqual({ status: 200, body: 10, code: 0 });
    expect(raw.open()).toBe(1);
  });
});
