import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fuzzAsync } from "../testing/fuzz-async.js";
import { json, plain } from "../forms.js";
import { Needle } from "../replacer.js";
import { SecretSet } from "../secret-set.js";
import { naive } from "../testing/naive.js";
import { cutAt } from "../testing/pieces.js";
import { headOf, secretOf } from "../testing/secrets.js";
import { masked, readHead, renderFrame } from "./frame.js";

const value = 'real"value';
const secret = secretOf({ placeholder: "ph-abcdefgh", value });
const head = headOf({ method: "GET", webSocket: true });

interface Frame {
  readonly opcode: number;
  readonly final: boolean;
  readonly payload: Buffer;
}

function render(frames: readonly Frame[], mask: boolean): Buffer {
  return Buffer.concat(frames.flatMap(({ payload, ...kind }) => renderFrame({ ...kind, masked: mask }, [payload])));
}

function read(bytes: Buffer, mask: boolean): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length;) {
    const { head: found, size } = readHead(bytes.subarray(at), mask)!;
    const raw = bytes.subarray(at + size, at + size + found.length);
    frames.push({
      opcode: found.opcode,
      final: found.final,
      payload: found.key === null ? raw : masked(raw, found.key, 0),
    });
    at += size + found.length;
  }
  return frames;
}

/** Control frames, and data frames put together to messages. */
function messages(frames: readonly Frame[]): string[] {
  const done: string[] = [];
  let open = "";
  for (const { opcode, final, payload } of frames) {
    if (opcode >= 8) {
      done.push(`${opcode}:${payload.toString("latin1")}`);
      continue;
    }
    open += opcode === 0 ? payload.toString("latin1") : `${opcode}:${payload.toString("latin1")}`;
    if (final) done.push(open);
    if (final) open = "";
  }
  return done;
}

function sockets(secrets = [secret]) {
  return SecretSet.compile(secrets).request(head).webSocket!;
}

async function through(
  direction: "toServer" | "toClient",
  bytes: readonly Buffer[],
  secrets = [secret],
): Promise<Frame[]> {
  return read(await buffer(Readable.from(bytes).pipe(sockets(secrets)[direction])), direction === "toServer");
}

const text = (payload: string): Frame => ({ opcode: 1, final: true, payload: Buffer.from(payload) });

describe("A WebSocket", () => {
  it("has values put into its messages, as text and as JSON, and kept out of those that come back", async () => {
    const sent = render([text("say ph-abcdefgh"), text(' {"a":"ph-abcdefgh"}'), text("")], true);
    expect(messages(await through("toServer", [sent]))).toEqual(['1:say real"value', '1: {"a":"real\\"value"}', "1:"]);
    const told = render([text(`say ${value}`), text('{"a":"real\\"value"}'), { opcode: 8, final: true, payload: Buffer.from(`\x03\xe8${value}`, "latin1") }], false);
    expect(messages(await through("toClient", [told]))).toEqual(["1:say ph-abcdefgh", '1:{"a":"ph-abcdefgh"}', "8:\x03\xe8ph-abcdefgh"]);
  }); // prettier-ignore

  it("masks what goes to the server, each frame with a key of its own", async () => {
    const sent = render([text("one"), text("one")], true);
    const output = await buffer(Readable.from([sent]).pipe(sockets().toServer));
    expect(output.subarray(2, 6)).not.toEqual(output.subarray(11, 15));
    expect(output.subarray(2, 6)).not.toEqual(sent.subarray(2, 6));
  });

  it("passes a large frame on in fragments, so that it is never there as a whole", async () => {
    const large = Buffer.alloc(300_000, "x");
    const frames = await through("toClient", cutAt(render([{ opcode: 2, final: true, payload: large }], false), Array.from({ length: 99 }, (_, i) => i * 3_000)));
    expect(frames.length).toBeGreaterThan(3);
    expect(Math.max(...frames.map(({ payload }) => payload.length))).toBeLessThan(70_000);
    expect(messages(frames)).toEqual([`2:${large.toString()}`]);
  }); // prettier-ignore

  it("ends where a placeholder shows up that may not stand there", async () => {
    const elsewhere = [{ ...secret, locations: ["header"] as const }];
    const bytes = [render([{ opcode: 1, final: false, payload: Buffer.from("ph-abc") }], true), render([{ opcode: 0, final: true, payload: Buffer.from("defgh") }], true)];
    await expect(through("toServer", bytes, elsewhere)).rejects.toMatchObject({ name: "SecretRefusal", where: "websocket", secret: "TOKEN" });
  }); // prettier-ignore

  const frame = (first: number, second: number, ...rest: number[]): Buffer => Buffer.from([first, second, ...rest]);
  it.each([
    ["is of an extension", frame(0xc1, 0x80, 0, 0, 0, 0)],
    ["is not masked", frame(0x81, 0x00)],
    ["is of an unknown kind", frame(0x83, 0x80, 0, 0, 0, 0)],
    ["is a control frame in parts", frame(0x09, 0x80, 0, 0, 0, 0)],
    ["is a control frame that is too long", frame(0x89, 0xfe, 1, 0, 0, 0, 0, 0)],
    ["continues nothing", frame(0x80, 0x80, 0, 0, 0, 0)],
    ["begins a message within another", frame(0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0)],
    ["is longer than any number", frame(0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)],
  ])("ends where a frame %s", async (_, bytes) => {
    await expect(through("toServer", [bytes])).rejects.toMatchObject({ name: "UnreadableContent", side: "client" });
  });

  it("ends where a message grows beyond all measure", async () => {
    const long = [{ ...secret, value: "v".repeat(60_000) }];
    await expect(through("toServer", [render([text("ph-abcdefgh".repeat(2_000))], true)], long)).rejects.toThrow(
      /grows beyond/,
    );
  });

  it("asks for no extension, and takes none", async () => {
    const headers: [string, string][] = [["Sec-WebSocket-Extensions", "permessage-deflate"], ["Sec-WebSocket-Key", "x"]]; // prettier-ignore
    const request = SecretSet.compile([secret]).request({ ...head, headers });
    expect((await request.send(null)).headers).toEqual([["Sec-WebSocket-Key", "x"]]);
    expect(() => request.answer.head(101, headers, false)).toThrow(/an extension that nobody asked for/);
  });

  it("passes what replacing in whole messages gives, wherever they are cut into frames and those into pieces", async () => {
    const part = fc.constantFrom("ph-abcdefgh", "ph-", "abcd", value, 'real\\"value', "real", "{", '"', " ", "\\u0070h-abcdefgh", "x".repeat(200));
    const message = fc.record({
      text: fc.array(part, { maxLength: 6 }).map((parts) => parts.join("")),
      opcode: fc.constantFrom(1, 2),
      cuts: fc.array(fc.nat(80), { maxLength: 4 }),
      pings: fc.array(fc.nat(4), { maxLength: 2 }),
    });
    const cuts = fc.array(fc.nat(600), { maxLength: 12 });
    await fuzzAsync(
      fc.asyncProperty(fc.array(message, { maxLength: 4 }), cuts, fc.constantFrom("toServer", "toClient"), async (sent, places, direction) => {
        const frames = sent.flatMap(({ text: whole, opcode, cuts: at, pings }) => {
          const pieces = whole === "" ? [Buffer.alloc(0)] : cutAt(Buffer.from(whole), at);
          return pieces.flatMap((payload, index) => [
            { opcode: index === 0 ? opcode : 0, final: index === pieces.length - 1, payload },
            ...(pings.includes(index) ? [{ opcode: 9, final: true, payload: Buffer.from(`${index}`) }] : []),
          ]);
        });
        const expected = messages(frames).map((whole) => (whole.startsWith("9:") ? whole : `${whole.slice(0, 2)}${replaced(whole.slice(2), direction)}`));
        const result = messages(await through(direction, cutAt(render(frames, direction === "toServer"), places)));
        // a ping may overtake a fragment that waits, but no other message
        const order = (all: string[], ping: boolean): string[] => all.filter((one) => one.startsWith("9:") === ping);
        expect([order(result, false), order(result, true)]).toEqual([order(expected, false), order(expected, true)]);
      }),
      300,
    );
  }, 60_000); // prettier-ignore
});

function replaced(whole: string, direction: "toServer" | "toClient"): string {
  const bytes = Buffer.from(whole, "latin1");
  if (direction === "toClient") {
    const patterns = [value, 'real\\"value', "real%22value", "real&quot;value", "real&#34;value"].map((find) => ({ needle: new Needle(Buffer.from(find)), put: Buffer.from("ph-abcdefgh") }));
    return naive(bytes, patterns, "plain").toString("latin1");
  }
  const form = /^\s*[{["]/.test(whole) ? json : plain;
  return naive(bytes, [{ needle: new Needle(Buffer.from("ph-abcdefgh")), put: form.write(value) }], form === json ? "json" : "plain").toString("latin1");
} // prettier-ignore
