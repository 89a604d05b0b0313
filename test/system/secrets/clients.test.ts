import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { lacks } from "../../support/needs.js";
import { fetchFrom, lines, shell, talk, talkByWebSocket } from "../../support/secrets/inside.js";
import { header } from "../../support/secrets/server.js";
import type { Received } from "../../support/secrets/server/wire.js";
import { useSecrets } from "../../support/secrets/target.js";
import { usualSecrets } from "../../support/secrets/usual-secrets.js";

const target = useSecrets();
const { TOKEN, BODY, SOCKET, LOOSE } = usualSecrets;

const made: { box?: Sandbox } = {};
beforeAll(async () => {
  made.box = await target.create();
});
afterAll(() => made.box?.destroy());

function sandbox(): Sandbox {
  if (made.box === undefined) throw new Error("the sandbox was not made");
  return made.box;
}

const run = (line: string): Promise<string> => shell(sandbox(), line);

/** Runs it; returns the one request that arrived. */
async function arrivalOf(work: () => Promise<unknown>): Promise<Received> {
  const arrivals = await target.server.arrivalsOf(work);
  expect(arrivals).toHaveLength(1);
  return arrivals[0]!;
}

const asked = '-H "Authorization: Bearer $TOKEN"';
const echo = "https://api.example.com/echo";
const sClient =
  "openssl s_client -quiet -verify_return_error -connect api.example.com:443 -servername api.example.com 2>&1";
const client = (way: string): string => `/usr/bin/python3 /opt/clients/client.py ${way} ${echo} "$TOKEN"`;

/** What is run, and the version of HTTP that it must have spoken. */
const clients: Readonly<Record<string, readonly [string, RegExp]>> = {
  "curl by HTTP/1.1 through the proxy of its environment": [
    `curl -sSv --http1.1 ${asked} ${echo} 2>&1`,
    /< HTTP\/1\.1 200/,
  ],
  "curl by HTTP/2 through the proxy of its environment": [`curl -sSv --http2 ${asked} ${echo} 2>&1`, /< HTTP\/2 200/],
  "curl by HTTP/1.1 that knows of no proxy": [
    `curl -sSv --noproxy '*' --http1.1 ${asked} ${echo} 2>&1`,
    /< HTTP\/1\.1 200/,
  ],
  "curl by HTTP/2 that knows of no proxy": [`curl -sSv --noproxy '*' --http2 ${asked} ${echo} 2>&1`, /< HTTP\/2 200/],
  "curl to a server without HTTP/2": [`curl -sS ${asked} https://h1.example.com/echo`, /./],
  wget: [`/usr/bin/wget -nv -O- --header="Authorization: Bearer $TOKEN" ${echo} 2>&1`, /./],
  "openssl's client": [
    `printf 'GET /echo HTTP/1.0\\r\\nHost: api.example.com\\r\\nConnection: close\\r\\nAuthorization: Bearer %s\\r\\n\\r\\n' "$TOKEN" | ${sClient}`,
    /HTTP\/1\.\d 200/,
  ],
  "Python's urllib": [client("urllib"), /^200/],
  "Python's requests": [client("requests"), /^200/],
  "Node's fetch": [
    `node -e 'fetch("${echo}", { headers: { authorization: "Bearer " + process.env.TOKEN } }).then(async (r) => console.log(r.status, await r.text()))'`,
    /^200/,
  ],
  "a login shell's curl": [`sh -lc 'curl -sS ${asked} ${echo}'`, /./],
};

describe.skipIf(lacks("root"))("a client in a sandbox", () => {
  it.each(Object.entries(clients))(
    "is authorized with the real value, and never sees it: %s",
    async (_, [line, version]) => {
      let said = "";
      const arrival = await arrivalOf(async () => (said = await run(line)));
      expect(said).toContain(`you said: Bearer ${TOKEN.placeholder} and no more`);
      expect(said).toMatch(version);
      expect(said).not.toContain(TOKEN.value);
      expect(header(arrival, "authorization")).toBe(`Bearer ${TOKEN.value}`);
    },
  );

  it("has its other headers, its path and its method arrive as they were", async () => {
    const arrival = await arrivalOf(() =>
      run(
        `curl -sS --http1.1 -X PATCH ${asked} -H 'X-Odd: a  b;c="d"' -H 'x-empty;' --path-as-is 'https://api.example.com/record?a=%20b&c=~%7e+'`,
      ),
    );
    expect(arrival).toMatchObject({ method: "PATCH", target: "/record?a=%20b&c=~%7e+" });
    expect(header(arrival, "x-odd")).toBe('a  b;c="d"');
    expect(header(arrival, "x-empty")).toBe("");
    expect(header(arrival, "user-agent")).toMatch(/^curl\//);
  });

  it("keeps one connection for many requests", async () => {
    const urls = Array<string>(5).fill(echo).join(" ");
    const from = target.server.received.length;
    const said = await run(`curl -sS --http1.1 -w '%{num_connects}\\n' ${asked} ${urls}`);
    await target.server.settled();
    expect(said.match(/^\d+$/gm)).toEqual(["1", "0", "0", "0", "0"]);
    const arrivals = target.server.received.slice(from);
    expect(arrivals.filter(({ kind }) => kind === "request")).toHaveLength(5);
    expect(arrivals.filter(({ kind }) => kind === "hello").length).toBeLessThanOrEqual(1);
  });

  it("reaches a host that no secret is for with that host's own certificate", async () => {
    await using box = await target.create({ secrets: ["TOKEN"] });
    const issuer = (host: string): Promise<string> =>
      shell(box, `curl -sSv --noproxy '*' https://${host}/record 2>&1 | sed -n 's/^.*issuer: //p'`);
    expect(await issuer("other.example.com")).toContain("authority of the tests");
    expect(await issuer("api.example.com")).not.toContain("authority of the tests");
  });
});

describe.skipIf(lacks("root"))("what is streamed through the proxy", () => {
  it("comes event by event, with what a server says of the secret replaced", async () => {
    const url = "https://api.example.com/events";
    const { text, pieces, headers } = await fetchFrom(sandbox(), url, {
      headers: { authorization: `Bearer ${TOKEN.placeholder}` },
    });
    expect(text).toBe(`data: first\n\ndata: Bearer ${TOKEN.placeholder}\n\ndata: last\n\n`);
    expect(headers["content-type"]).toBe("text/event-stream");
    // the server waits between them
    const [first, last] = [pieces[0], pieces.at(-1)];
    expect(first?.text).toBe("data: first\n\n");
    expect((last?.ms ?? 0) - (first?.ms ?? 0)).toBeGreaterThan(200);
  });

  it("is sent in chunks with the placeholder replaced, however it is cut", async () => {
    const content = `<${BODY.placeholder}> and <${BODY.placeholder}>`;
    const chunks =
      Array.from(content)
        .map((letter) => lines("1", letter))
        .join("") + lines("0", "");
    const head = lines(
      "POST /record HTTP/1.1",
      "Host: api.example.com",
      "Content-Type: text/plain",
      "Transfer-Encoding: chunked",
      "",
    );
    const arrival = await arrivalOf(() =>
      talk(sandbox(), {
        host: "api.example.com",
        pieces: [head, ...(chunks.match(/.{1,17}/gs) ?? [])],
        pauseMs: 1,
        until: "recorded",
      }),
    );
    expect(arrival.body).toBe(`<${BODY.value}> and <${BODY.value}>`);
  });

  it("has a length that is right for the real value, in JSON and in forms", async () => {
    const json = await arrivalOf(() =>
      run(
        `curl -sS -H 'Content-Type: application/json' -d '{"a": "${BODY.placeholder}"}' https://api.example.com/record`,
      ),
    );
    expect(JSON.parse(json.body)).toEqual({ a: BODY.value });
    const form = await arrivalOf(() =>
      run(`curl -sS --data-urlencode "a=${BODY.placeholder}" -d b=c https://api.example.com/record`),
    );
    expect(Object.fromEntries(new URLSearchParams(form.body))).toEqual({ a: BODY.value, b: "c" });
    const query = await arrivalOf(() =>
      run(`curl -sS -G --data-urlencode "a=${BODY.placeholder}" https://api.example.com/record`),
    );
    expect(new URL(query.target, "https://x").searchParams.get("a")).toBe(BODY.value);
    for (const { headers, bodyBytes } of [json, form])
      expect(headers).toContainEqual([expect.stringMatching(/^content-length$/i), String(bodyBytes)]);
  });

  it("has trailers both ways", async () => {
    const body = lines("4", "body", "0", `X-Sum: ${TOKEN.placeholder}`, "");
    const head = lines(
      "POST /trailers HTTP/1.1",
      "Host: h1.example.com",
      `Authorization: Bearer ${TOKEN.placeholder}`,
      "TE: trailers",
      "Trailer: X-Sum",
      "Transfer-Encoding: chunked",
      "",
    );
    let said = "";
    const arrival = await arrivalOf(async () => {
      ({ text: said } = await talk(sandbox(), {
        host: "h1.example.com",
        pieces: [head + body],
        until: "X-Echo: Bearer",
      }));
    });
    expect(arrival.trailers).toContainEqual([expect.stringMatching(/^x-sum$/i), TOKEN.value]);
    expect(said).toMatch(new RegExp(`\r\nX-Echo: Bearer ${TOKEN.placeholder}`, "i"));
  });

  it("waits for the word to go on", async () => {
    const said = await run(
      `head -c 2000000 /dev/zero | curl -sSv --http1.1 ${asked} -H 'Expect: 100-continue' -T - https://h1.example.com/upload 2>&1 | grep -a '^<'`,
    );
    expect(said).toMatch(/^< HTTP\/1\.1 100 Continue[^]*^< HTTP\/1\.1 200 OK/m);
  });

  it("goes both ways by WebSocket, message by message and in fragments, with what stands for the secret replaced", async () => {
    const { placeholder, value } = SOCKET;
    const [begin, end] = [placeholder.slice(0, 9), placeholder.slice(9)];
    const messages = [
      "hello",
      `it is ${placeholder}!`,
      [`{"a": "${begin}`, `${end}"}`],
      "x".repeat(40_000) + placeholder,
    ];
    const headers = { authorization: `Bearer ${TOKEN.placeholder}` };
    const arrivals = await target.server.arrivalsOf(async () => {
      const { answers, closed, error } = await talkByWebSocket(sandbox(), "wss://api.example.com/ws", {
        messages,
        headers,
      });
      expect({ closed, error }).toEqual({ closed: 1000, error: "" });
      expect(answers).toEqual(messages.map((each) => (typeof each === "string" ? each : each.join(""))));
    });
    const [upgrade, ...received] = arrivals;
    expect(upgrade && header(upgrade, "authorization")).toBe(`Bearer ${TOKEN.value}`);
    expect(received.map(({ body }) => body)).toEqual([
      "hello",
      `it is ${value}!`,
      `{"a": "${value}"}`,
      "x".repeat(40_000) + value,
    ]);
  });

  it("goes without TLS only where the secret says so", async () => {
    const ask = (placeholder: string): Promise<string> =>
      run(`curl -sS -H 'X-Key: ${placeholder}' 'http://api.example.com/echo?header=x-key'`);
    const open = await arrivalOf(async () =>
      expect(await ask(LOOSE.placeholder)).toContain(`you said: ${LOOSE.placeholder} and no more`),
    );
    expect(header(open, "x-key")).toBe(LOOSE.value);
    const arrivals = await target.server.arrivalsOf(async () =>
      expect(await ask(TOKEN.placeholder)).toMatch(/^squash: .*TOKEN/),
    );
    expect(arrivals).toEqual([]);
  });
});
