import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { a, places, usualZone } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { askHttp2, lines, shell, talk, talkByWebSocket } from "../../support/secrets/inside.js";
import { goodZone, serverPlaces } from "../../support/secrets/server.js";
import { useSecrets } from "../../support/secrets/target.js";
import { formsOf } from "../../support/secrets/traces.js";
import { usualSecrets } from "../../support/secrets/usual-secrets.js";

const target = useSecrets();
const { TOKEN, LOOSE, PASSWORD } = usualSecrets;
const host = "api.example.com";
const mebi = 1_048_576;

const made: { box?: Sandbox; bare?: Sandbox } = {};
beforeAll(async () => {
  made.box = await target.create({ id: "asker" });
  made.bare = await target.create({ id: "bare", secrets: [] });
});
afterAll(() => target.squashd.destroyAll());

function box(which: "box" | "bare" = "box"): Sandbox {
  const found = made[which];
  if (found === undefined) throw new Error("the sandbox was not made");
  return found;
}

const run = (line: string): Promise<string> => shell(box(), line);
const bearer = `-H "Authorization: Bearer $TOKEN"`;

function expectNothingOf(value: string, said: string): void {
  const bytes = Buffer.from(said, "latin1");
  for (const [form, wanted] of formsOf(value))
    if (["raw", "json", "url"].includes(form)) expect(bytes.includes(wanted)).toBe(false);
}

/** Ways in which a server says what it was told, and how to hear it. */
const echoes: Readonly<Record<string, () => Promise<string>>> = {
  "in its body": () => run(`curl -sS ${bearer} https://${host}/echo`),
  "in its body by HTTP/1.1": () => run(`curl -sS --http1.1 ${bearer} https://${host}/echo`),
  "in JSON": () => run(`curl -sS ${bearer} https://${host}/echo?as=json`),
  "in header fields and cookies": () => run(`curl -sS -i ${bearer} https://${host}/echo?as=header`),
  "in pieces of a few bytes": () => run(`curl -sS ${bearer} https://${host}/echo?as=chunks`),
  "packed by gzip": () => run(`curl -sS --compressed ${bearer} https://${host}/echo?as=gzip`),
  "packed by deflate": () => run(`curl -sS --compressed ${bearer} https://${host}/echo?as=deflate`),
  "packed by brotli": () => run(`curl -sS --compressed ${bearer} https://${host}/echo?as=br`),
  "in an error page": () => run(`curl -sS -i ${bearer} 'https://${host}/echo?status=500'`),
  "in an answer to HEAD": () =>
    run(`curl -sS -I ${bearer} 'https://${host}/echo?as=header'; echo ${TOKEN.placeholder}`),
  "in events": () => run(`curl -sSN ${bearer} https://${host}/events`),
  "in trailers": async () => {
    const [answer] = await askHttp2(box(), host, [
      { headers: { ":path": "/trailers", te: "trailers", authorization: `Bearer ${TOKEN.placeholder}` } },
    ]);
    return JSON.stringify(answer);
  },
  "to another request, without the secret": async () => {
    await run(`curl -sS ${bearer} https://${host}/echo`);
    return run(`curl -sS -H 'X-Said: ${TOKEN.placeholder}' 'https://${host}/echo?header=x-said'`);
  },
  "in the place where it leads on to": () =>
    run(`curl -sS -i ${bearer} 'https://${host}/redirect?to=evil.example.net'`),
};

describe.skipIf(lacks("root"))("a server that says what it was told says the placeholder:", () => {
  it.each(Object.entries(echoes))("%s", async (_, hear) => {
    let said = "";
    const arrivals = await target.server.arrivalsOf(async () => (said = await hear()));
    expect(JSON.stringify(arrivals)).toContain(TOKEN.value);
    expect(said).toContain(TOKEN.placeholder);
    expectNothingOf(TOKEN.value, said);
  });

  it("or breaks off where it is packed for who did not ask for that", async () => {
    for (const coding of ["gzip", "br"])
      expect(await run(`curl -sS -o /tmp/said ${bearer} https://${host}/echo?as=${coding}`)).toMatch(/^curl: \(92\)/);
    expect(await run(`cat /tmp/said; gunzip </tmp/said 2>/dev/null; rm -f /tmp/said; true`)).not.toContain(TOKEN.value);
  });

  it("by a WebSocket", async () => {
    const said = await talkByWebSocket(box(), `wss://${host}/ws`, {
      messages: [`<${LOOSE.placeholder}>`, "x".repeat(30_000) + LOOSE.placeholder],
    });
    expect(said.answers[0]).toBe(`<${LOOSE.placeholder}>`);
    expect(said.answers[1]?.endsWith(LOOSE.placeholder)).toBe(true);
    expectNothingOf(LOOSE.value, JSON.stringify(said));
  });

  it("with credentials as they were sent", async () => {
    const said = await run(`curl -sS -u "me:$PASSWORD" https://${host}/echo`);
    expect(said).toBe(`you said: Basic ${Buffer.from(`me:${PASSWORD.placeholder}`).toString("base64")} and no more\n`);
  });

  it("also to a sandbox that has no part in it, as long as it has the secret", async () => {
    // whoever knows the value, from wherever, does not see it come back through the proxy
    const said = await run(`curl -sS -d 'a ${LOOSE.value} b' -H 'Content-Type: text/plain' https://${host}/echo-body`);
    expect(said).toBe(`a ${LOOSE.placeholder} b`);
  });
});

/** Resident memory of a process at its most since the last call, in bytes. */
function peakMemory(): number {
  const { pid } = target.squashd;
  const [, kib = "0"] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
  return Number(kib) * 1_024;
}

/** What a server does, by path, and what is told of it: the status, or how curl says that the answer broke off. */
const misdeeds: Readonly<Record<string, RegExp>> = {
  "/endless-headers": /^502 exit 0$/,
  "/endless-line": /^502 exit 0$/,
  "/endless-chunk-line": /^(502 exit 0|200 exit (18|56|92))$/,
  "/too-short": /^200 exit (18|56|92)$/,
  "/too-long": /^(502 exit 0|200 exit (0|18|56|92))$/,
  "/two-lengths": /^502 exit 0$/,
  "/length-and-chunks": /^502 exit 0$/,
  "/bad-chunk": /^(502 exit 0|200 exit (18|56|92))$/,
  "/split-field": /^(200|502) exit 0$/,
  "/no-http": /^502 exit 0$/,
  "/reset": /^200 exit (18|56|92)$/,
  "/second-answer": /^(200|502) exit 0$/,
  "/bomb": /^(502 exit 0|200 exit (18|56|92))$/,
};

describe.skipIf(lacks("root"))("a server that misbehaves", () => {
  it.each(Object.entries(misdeeds))("by %s is cut off or told of, and tells nothing", async (path, expected) => {
    peakMemory();
    const before = peakMemory();
    const begin = performance.now();
    let said = "";
    const arrivals = await target.server.arrivalsOf(async () => {
      said = await run(
        `curl -sS -i -m 8 -o /tmp/said -w '%{http_code} ' ${bearer} https://hostile.example.com${path} 2>/tmp/error; echo "exit $?"; cat /tmp/error; head -c 100000 /tmp/said; rm -f /tmp/said`,
      );
    });
    expect(JSON.stringify(arrivals)).toContain(TOKEN.value); // it has been told
    expect(said.split("\n")[0]).toMatch(expected);
    expectNothingOf(TOKEN.value, said);
    expect(performance.now() - begin).toBeLessThan(5_000);
    expect(peakMemory() - before).toBeLessThan(64 * mebi);
    expect(await run(`curl -sS ${bearer} https://${host}/record`)).toBe("recorded\n");
  });

  it("packs 256 MiB into a quarter of one, which are unpacked without the proxy", async () => {
    const size = await shell(box("bare"), "curl -sS --compressed https://hostile.example.com/bomb 2>/dev/null | wc -c");
    expect(Number(size)).toBe(256 * mebi);
  });

  it("sends without an end to who takes it slowly, in constant memory", async () => {
    peakMemory();
    const before = peakMemory();
    await run(`curl -sS -m 1 --limit-rate 100k ${bearer} https://hostile.example.com/endless-body -o /dev/null`);
    expect(peakMemory() - before).toBeLessThan(64 * mebi);
  });
});

describe.skipIf(lacks("root"))("a client's own bomb", () => {
  it("is refused, in constant memory", async () => {
    peakMemory();
    const before = peakMemory();
    // by the same token it could be a gigabyte: what counts is how much becomes of how little
    const packed = gzipSync(Buffer.alloc(96 * mebi), { level: 9 }).toString("latin1");
    const head = lines(
      "POST /upload HTTP/1.1",
      `Host: ${host}`,
      "Content-Encoding: gzip",
      "Content-Type: text/plain",
      `Content-Length: ${packed.length}`,
      "Connection: close",
      "",
    );
    const arrivals = await target.server.arrivalsOf(async () => {
      const { text } = await talk(box(), { host, pieces: [head + packed] });
      expect(text).toMatch(/^HTTP\/1\.1 400 [^]*squash: /);
    });
    expect(arrivals.filter(({ complete }) => complete)).toEqual([]);
    expect(peakMemory() - before).toBeLessThan(96 * mebi);
  });
});

describe.skipIf(lacks("root"))("a server that is not the one that was asked for", () => {
  const servers = {
    "wrong.bad.example.com": /its certificate is for another name/,
    "expired.bad.example.com": /its certificate has expired/,
    "unknown.bad.example.com": /its certificate is from an unknown authority/,
  };

  it.each(Object.entries(servers))("gets nothing: %s", async (name, reason) => {
    const ask = `curl -sS -k -H "Authorization: Bearer ${TOKEN.placeholder}" https://${name}/record`;
    expect(await target.server.arrivalsOf(() => shell(box("bare"), ask))).toHaveLength(1);
    const arrivals = await target.server.arrivalsOf(async () => expect(await run(ask)).toMatch(reason));
    expect(arrivals).toEqual([]);
  });

  const setZone = (name: string, ...addresses: readonly string[]): Promise<void> =>
    target.internet.setZone({
      ...usualZone,
      ...goodZone,
      [name]: a(name, ...addresses).map((each) => ({ ...each, ttl: 0 })),
    });
  const inner = (at: string): boolean => at.includes(places.lan) || at.includes(places.metadata);
  const ask = (name: string): string => `curl -sS -m 4 -H "X-Key: ${LOOSE.placeholder}" https://${name}/record`;

  it("gets nothing though a name leads to it, or comes to do so between two requests", async () => {
    await setZone("moving.example.com", serverPlaces.good);
    expect(await run(ask("moving.example.com"))).toBe("recorded\n");
    const before = target.internet.arrivals.length;
    for (const [index, address] of [places.lan, places.metadata, "127.0.0.1", "10.200.0.1"].entries()) {
      await setZone("moving.example.com", address);
      expect(await run(ask("moving.example.com"))).toMatch(/^(recorded|squash: .*not allowed|curl: )/);
      await setZone(`inside${index}.example.com`, address);
      expect(await run(ask(`inside${index}.example.com`))).toMatch(/^(squash: .*not allowed|curl: )/);
    }
    await target.internet.settled();
    expect(target.internet.arrivals.slice(before).filter(({ server }) => inner(server))).toEqual([]);
  });

  it("is reached by such a name where the sandbox may go there, but cannot prove who it is", async () => {
    await setZone("lan.example.com", places.lan);
    await using open = await target.create({ allow_net: ["*.example.com", places.lan] });
    const before = target.internet.arrivals.length;
    const said = await shell(open, ask("lan.example.com"));
    await target.internet.settled();
    expect(
      target.internet.arrivals.slice(before).map(({ server }) => server),
      said,
    ).toContain(`tcp ${places.lan}:443`);
    expect(said).toMatch(/^squash: .*certificate/);
  });
});

describe.skipIf(lacks("root"))("a policy", () => {
  it("holds for hosts that secrets are for as for all others", async () => {
    await using closed = await target.create({ allow_net: ["other.example.com"] });
    const arrivals = await target.server.arrivalsOf(async () => {
      expect(await shell(closed, `curl -sS ${bearer} https://${host}/record`)).toMatch(/not allowed|403/);
      expect(
        await shell(
          closed,
          `curl -sS --noproxy '*' --resolve ${host}:443:${serverPlaces.good} ${bearer} https://${host}/record`,
        ),
      ).toMatch(/^curl: /);
    });
    expect(arrivals).toEqual([]);
    await closed.setNetwork({ allow_net: [host] });
    expect(await shell(closed, `curl -sS ${bearer} https://${host}/record`)).toBe("recorded\n");
  });
});
