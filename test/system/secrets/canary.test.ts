import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { lacks } from "../../support/needs.js";
import { patience } from "../../support/patience.js";
import { fetchFrom, shell, talk, talkByWebSocket } from "../../support/secrets/inside.js";
import { useSecrets } from "../../support/secrets/target.js";
import { formsOf, Traces } from "../../support/secrets/traces.js";

/** What must be found nowhere. Its letters differ in each form in which it is looked for. */
const value = `canary"${randomBytes(12).toString("hex")}?>/~${randomBytes(12).toString("base64")}&\\`;
const placeholder = "placeholder-of-the-canary";
const everywhere = ["header", "basic", "query", "body", "websocket"];
const target = useSecrets(
  {
    CANARY: {
      placeholder,
      value,
      allowed_hosts: ["api.example.com", "hostile.example.com", "nowhere.example.com", "*.bad.example.com"],
      locations: everywhere,
    },
    PRESENT: {
      placeholder: "placeholder-for-injection",
      value,
      allowed_hosts: ["h1.example.com"],
      inject_header: { name: "X-Present", value: "it is {placeholder}" },
    },
  },
  { env: { SQUASH_LOG_LEVEL: "debug" } },
);
const { squashd } = target;

/** answers of squashd, by what they are of */
const answers = new Map<string, string>();
const made: { box?: Sandbox } = {};

/** One request to squashd's own API, as it is. */
function get(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: join(squashd.home, "api.sock"), path }, (response) => {
      let text = JSON.stringify(response.rawHeaders);
      response.setEncoding("latin1").on("data", (piece: string) => (text += piece));
      response.on("end", () => resolve(text));
    });
    asked.on("error", reject).end();
  });
}

/** Keeps what something answers, or how it fails. */
async function keep(name: string, answer: Promise<unknown>): Promise<void> {
  const text = await answer.then(
    (result) => (typeof result === "string" ? result : JSON.stringify(result)),
    (error: unknown) => `${String(error)} ${JSON.stringify(error)}`,
  );
  answers.set(name, text);
}

const bearer = '-H "Authorization: Bearer $CANARY"';
const api = "https://api.example.com";
/** All that a sandbox may do with a secret, and much that it may not, with errors on the way. */
const uses = [
  `curl -sS -i ${bearer} ${api}/echo ${api}/echo?as=header ${api}/echo?as=json ${api}/echo?as=gzip ${api}/echo?as=chunks ${api}/events`,
  `curl -sS -v -u "me:$CANARY" ${api}/echo 2>&1`,
  `curl -sS -i -d "a=$CANARY" ${api}/echo-body`,
  `curl -sS -i -H 'Content-Type: application/json' -d '{"a":"'$CANARY'"}' ${api}/echo-body`,
  `curl -sS -i "${api}/record?key=$CANARY"`,
  `curl -sS -i ${bearer} "${api}/echo?status=500" "${api}/nothing"`,
  `curl -sS -i -L ${bearer} "${api}/redirect?to=evil.example.net"`,
  `curl -sS -i --http1.1 https://h1.example.com/echo?header=x-present`,
  `curl -sS -m 3 ${bearer} https://hostile.example.com/too-short https://hostile.example.com/no-http https://hostile.example.com/split-field`,
  `curl -sS -m 3 ${bearer} https://expired.bad.example.com/echo https://wrong.bad.example.com/echo https://nowhere.example.com/echo`,
  `curl -sS ${bearer} http://api.example.com/echo`,
  `curl -sS -X "$CANARY" ${api}/record`,
  `/usr/bin/wget -S -O- --header="X-Key: $CANARY" ${api}/echo 2>&1`,
  `echo "$CANARY"; env; ps -ef; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'`,
];

beforeAll(async () => {
  const box = (made.box = await target.create({ id: "canary" }));
  // a process that has used the secret, and lives on with all that it was told
  await box.exec(
    `node -e 'fetch("${api}/echo", { headers: { authorization: "Bearer " + process.env.CANARY } }).then(async (r) => { globalThis.said = await r.text(); setInterval(() => {}, 1e6); require("fs").writeFileSync("/tmp/lives", said); })' >/dev/null 2>&1 &`,
  );
  for (const [index, line] of uses.entries()) await keep(`use ${index}`, shell(box, line));
  await keep("fetch", fetchFrom(box, `${api}/events`, { headers: { authorization: `Bearer ${placeholder}` } }));
  await keep(
    "websocket",
    talkByWebSocket(box, "wss://api.example.com/ws", {
      messages: [placeholder, [placeholder.slice(0, 5), placeholder.slice(5)]],
    }),
  );
  await keep(
    "raw",
    talk(box, {
      host: "api.example.com",
      pieces: [`GET /echo HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: ${placeholder}\r\n: bad\r\n\r\n`],
    }),
  );
  await keep("crash", shell(box, `ulimit -c unlimited; cd /tmp; sh -c 'X=$CANARY; kill -SEGV $$'; ls -la /tmp`));
  await keep(
    "crash of node",
    shell(
      box,
      `cd /tmp; node --abort-on-uncaught-exception -e 'fetch("${api}/echo", {headers: {authorization: process.env.CANARY}}).then((r) => r.text()).then((t) => { throw new Error(t) })'; ls -la /tmp`,
    ),
  );
  await keep("snapshot", box.snapshot({ label: "first" }));
  await box.exec(`curl -sS ${bearer} ${api}/echo >/root/kept; dmesg >/root/dmesg 2>&1`);
  await keep("fork", box.fork({ target_id: "canary-fork" }));
  await keep(
    "in the fork",
    shell(squashd.client.sandbox("canary-fork"), `curl -sS -i ${bearer} ${api}/echo | tee /root/said`),
  );
  await keep("second snapshot", box.snapshot({ label: "second" }));
  await keep("diff", box.diff({ from: "first" }));
  await keep(
    "restore",
    box.restore("second", { running: "kill" }).catch((error: unknown) => error),
  );
  await keep("after the restore", shell(box, `curl -sS -i ${bearer} ${api}/echo | tee /root/again`));
  await box.exec(
    `node -e 'fetch("${api}/echo", { headers: { authorization: "Bearer " + process.env.CANARY } }).then(async (r) => { globalThis.said = await r.text(); setInterval(() => {}, 1e6); require("fs").writeFileSync("/tmp/lives", said); })' >/dev/null 2>&1 &`,
  );
  const waits = "for i in $(seq 100); do [ -s /tmp/lives ] && break; sleep 0.1; done; cat /tmp/lives";
  await keep("what lives", shell(box, waits));
}, 90_000 * patience);
afterAll(() => squashd.destroyAll());

/** Process ids of all that runs in a sandbox, as the host counts them. */
function processesOf(cgroup: string): number[] {
  const own = readdirSync(cgroup, { recursive: true, withFileTypes: true })
    .filter(({ name }) => name === "cgroup.procs")
    .map(({ parentPath, name }) => join(parentPath, name));
  return [...new Set(own.flatMap((file) => readFileSync(file, "utf8").trim().split("\n")))]
    .filter((pid) => pid !== "")
    .map(Number);
}

async function processes(): Promise<number[]> {
  const infos = await squashd.client.list();
  return infos.flatMap(({ cgroup, pid }) => [...processesOf(cgroup ?? ""), pid ?? 0]);
}

describe.skipIf(lacks("root"))("a secret that sandboxes have used all day", { timeout: 120_000 * patience }, () => {
  it("has been used indeed", () => {
    const arrived = target.server.received.filter((each) =>
      JSON.stringify(each).includes(JSON.stringify(value).slice(1, -1)),
    );
    expect(arrived.length).toBeGreaterThan(15);
    expect(answers.get("what lives")).toContain(placeholder);
    expect(answers.get("use 0")).toContain(`you said: Bearer ${placeholder} and no more`);
  });

  it("is in no answer of squashd and nothing that commands printed", async () => {
    const traces = new Traces(value);
    const id = "canary";
    for (const path of ["", "/logs", "/network", "/network/log", "/history", "/secrets"])
      await keep(`GET ${path}`, get(`/v1/sandboxes/${id}${path}`));
    for (const path of [
      "health",
      "metrics",
      "v1/sandboxes",
      "v1/modules",
      "v1/jobs",
      "v1/secrets",
      "v1/secrets/audit",
      "v1/ca",
      "v1/nothing",
    ])
      await keep(`GET ${path}`, get(`/${path}`));
    for (const args of [
      ["secret", "list"],
      ["secret", "list", "--json"],
      ["info", id],
      ["logs", id],
      ["metrics"],
      ["ca", "show"],
    ])
      await keep(`sq ${args.join(" ")}`, squashd.sq(...args));
    expect(answers.get("GET v1/secrets")).toContain(placeholder);
    expect(answers.get("GET v1/secrets/audit")).toContain("api.example.com");
    for (const [name, text] of answers) traces.inText(name, text);
    traces.inText("what squashd logs", squashd.output);
    expect(squashd.output).not.toBe("");
    expect(traces.found).toEqual([]);
    expect(traces.places).toBeGreaterThan(35);
  });

  it("is in no file of a sandbox, from inside or outside, and in no image", async () => {
    const traces = new Traces(value);
    for (const { pid } of await squashd.client.list()) {
      const root = `/proc/${pid}/root`;
      traces.inFolder(root, [`${root}/proc`, `${root}/sys`, `${root}/dev`]);
    }
    // that one is a namespace
    traces.inFolder(squashd.runDir, [join(squashd.runDir, "mounts")]);
    expect(traces.found).toEqual([]);
    expect(traces.looked).toBeGreaterThan(200_000_000);
  });

  it("is in no file of squashd's but the one that holds it", () => {
    const traces = new Traces(value);
    const file = join(squashd.dataDir, "secrets.json");
    traces.inFolder(squashd.dataDir, [
      file,
      ...readdirSync(join(squashd.dataDir, "modules")).map((name) => join(squashd.dataDir, "modules", name)),
    ]);
    expect(traces.found).toEqual([]);
    const control = new Traces(value);
    control.inFolder(squashd.dataDir, [join(squashd.dataDir, "modules")]);
    expect(control.found).toContain(`${file}: json`);
  });

  it("is in no memory, environment and command line of any process in a sandbox, nor of sq-host", async () => {
    const traces = new Traces(value);
    const pids = await processes();
    for (const pid of pids) traces.inProcess(pid);
    const hosts = execFileSync("pgrep", ["-P", String(squashd.pid)], { encoding: "utf8" })
      .trim()
      .split("\n")
      .map(Number);
    for (const pid of hosts) traces.inProcess(pid);
    for (const name of ["cmdline", "environ"])
      traces.inText(`squashd's ${name}`, readFileSync(`/proc/${squashd.pid}/${name}`));
    expect(traces.found).toEqual([]);
    expect(pids.length).toBeGreaterThan(3);
    // squashd itself has it, so that what is looked through is memory indeed
    const control = new Traces(value);
    control.inProcess(squashd.pid);
    expect(control.found).toContainEqual(expect.stringMatching(/memory.*: raw$/));
  });
});

describe.skipIf(lacks("root"))("the search for it", { timeout: 60_000 * patience }, () => {
  const planted = 'planted?>/~secret&\\"of the test';

  it.each([...formsOf(planted)])("finds it as %s in files, names, texts and memory", async (_, bytes) => {
    const folder = mkdtempSync(join(tmpdir(), "sqt-planted-"));
    try {
      // across the border of what is read at once
      writeFileSync(
        join(folder, "file"),
        Buffer.concat([Buffer.alloc(1_048_576 - 7, "x"), bytes, Buffer.alloc(9, "y")]),
      );
      const traces = new Traces(planted);
      traces.inFolder(folder);
      traces.inText("text", Buffer.concat([Buffer.from("before"), bytes]));
      expect(new Set(traces.found.map((place) => place.replace(/: .*/, "")))).toEqual(
        new Set([join(folder, "file"), "text"]),
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
    await Promise.resolve();
  });

  it("finds it in a sandbox's files, in its commands' memory, and in what is logged of them", async () => {
    const box = await target.create({ id: "planted", secrets: [] });
    const encoded = Buffer.from(planted).toString("base64");
    await box.exec(
      `echo ${encoded} | base64 -d >/root/it; X=$(cat /root/it) sleep 1000 >/dev/null 2>&1 & echo "$(base64 -d </dev/null)"; cat /root/it`,
    );
    const { pid, cgroup } = await box.info();
    const traces = new Traces(planted);
    traces.inFolder(`/proc/${pid}/root/root`);
    expect(traces.found).toEqual([`/proc/${pid}/root/root/it: raw`]);
    const memories = new Traces(planted);
    await expect
      .poll(() => {
        for (const each of processesOf(cgroup ?? "")) memories.inProcess(each);
        return memories.found;
      })
      .toContainEqual(expect.stringMatching(/^\d+ environ: raw$/));
    expect(memories.found).toContainEqual(expect.stringMatching(/^\d+ memory.*: raw$/));
    const logged = new Traces(planted);
    logged.inText("logs", await get("/v1/sandboxes/planted/logs"));
    logged.inFolder(join(squashd.dataDir, "sandboxes/planted"));
    expect(logged.found).toEqual(expect.arrayContaining(["logs: json"]));
  });
});
