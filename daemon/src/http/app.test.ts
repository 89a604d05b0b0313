import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@squash/sdk";
import { SquashError } from "@squash/sdk/errors";
import { errorStatus } from "@squash/sdk/protocol";
import type { FastifyInstance } from "fastify";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeMachine } from "../core/testing/fake-machine.js";
import { DiffAnswers } from "../diff/diff-answers.js";
import { fakeSquashd, type FakeSquashd } from "../core/testing/fake-squashd.js";
import { Metrics } from "../metrics.js";
import { readVersion } from "../version.js";
import { makeApp, type AppOptions } from "./app.js";
import { makeDocument } from "./document.js";
import { FakeJobs } from "./testing/fake-jobs.js";
import { FakeModules } from "./testing/fake-modules.js";
import { FakeSecrets } from "./testing/fake-secrets.js";

const token = "correct horse battery staple".replaceAll(" ", "-");
let machine: FakeMachine;
let squashd: FakeSquashd;
let webDir: string;
let bugs: unknown[];
const apps: FastifyInstance[] = [];

async function app(options: Partial<AppOptions> = {}): Promise<FastifyInstance> {
  const made = await makeApp({
    version: "1.2.3",
    sandboxes: squashd.sandboxes,
    time: squashd,
    diffs: new DiffAnswers(squashd.diffs),
    modules: new FakeModules(),
    jobs: new FakeJobs(),
    health: {
      health: () =>
        Promise.resolve({
          status: "ok",
          backend: "cell",
          version: "1.2.3",
          tailscale: { status: "off", ip: null },
          sandboxes: squashd.sandboxes.count,
          modules: 1,
          base_ready: true,
          pool: { ready: 0, size: 0 },
          secrets: { count: 0, usable: true },
          uptime_s: 1,
        }),
    },
    decisions: { read: () => Promise.resolve([]) },
    secrets: new FakeSecrets(),
    authorities: new FakeSecrets(),
    metrics: new Metrics(),
    webDir,
    authToken: "",
    checkOrigin: false,
    reportBug: (error) => bugs.push(error),
    ...options,
  });
  apps.push(made);
  return made;
}

beforeEach(() => {
  machine = new FakeMachine();
  squashd = fakeSquashd(machine);
  webDir = mkdtempSync(join(tmpdir(), "squash-web-"));
  writeFileSync(join(webDir, "index.html"), "<!doctype html><title>squash</title>");
  bugs = [];
});
afterEach(async () => {
  for (const each of apps.splice(0)) await each.close();
  rmSync(webDir, { recursive: true });
  expect(bugs).toEqual([]);
});

/** One request without a client that would mend it: the raw answer. */
async function raw(target: FastifyInstance, request: string | Buffer): Promise<string> {
  if (!target.server.listening) await target.listen({ host: "127.0.0.1", port: 0 });
  const { port } = target.server.address() as AddressInfo;
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(request));
    socket.on("data", (chunk) => (answer += chunk.toString()));
    socket.on("close", () => resolve(answer));
    socket.on("error", reject);
  });
}

describe("the routes", () => {
  it("create, list, show, run, log and destroy", async () => {
    const server = await app();
    const created = await server.inject({
      method: "POST",
      url: "/v1/sandboxes",
      payload: { id: "a", layers: "000-base" },
    });
    expect(created.statusCode).toBe(201);
    expect(created.json()).toMatchObject({ id: "a", state: "ready", layers: ["000-base"], cpu: 2, memory_mb: 1024 });
    expect((await server.inject("/v1/sandboxes")).json()).toHaveLength(1);
    expect((await server.inject("/v1/sandboxes/a")).json()).toMatchObject({ id: "a", exec_count: 0 });
    const ran = await server.inject({ method: "POST", url: "/v1/sandboxes/a/exec", payload: { cmd: "true" } });
    expect(ran.json()).toMatchObject({ seq: 1, exit_code: 0 });
    expect((await server.inject("/v1/sandboxes/a/logs")).json()).toMatchObject([{ seq: 1, cmd: "true" }]);
    const destroyed = await server.inject({ method: "DELETE", url: "/v1/sandboxes/a" });
    expect([destroyed.statusCode, destroyed.body]).toEqual([204, ""]);
    expect(machine.state()).toEqual([]);
  });

  it("exist below /cgi-bin/api and /cgi-bin/health as well", async () => {
    const server = await app();
    expect((await server.inject("/cgi-bin/api/sandboxes")).json()).toEqual([]);
    expect((await server.inject("/cgi-bin/api/modules")).json()).toHaveLength(1);
    expect((await server.inject("/cgi-bin/health")).json()).toEqual((await server.inject("/health")).json());
  });

  it("answer 404 to what is not there, and 405 with Allow to what is there for other methods", async () => {
    const server = await app();
    const missing = await server.inject("/v1/nothing?x=1");
    expect([missing.statusCode, missing.json()]).toMatchObject([404, { code: "not_found", error: /"\/v1\/nothing"/ }]);
    const wrong = await server.inject({ method: "PUT", url: "/v1/sandboxes" });
    expect([wrong.statusCode, wrong.headers.allow]).toEqual([405, "GET, HEAD, POST"]);
    expect(wrong.json()).toMatchObject({ code: "method_not_allowed" });
    expect((await server.inject("/v1/sandboxes/absent")).json()).toMatchObject({ code: "sandbox_not_found" });
    expect((await server.inject("/v1/sandboxes/..%2f..%2fetc")).statusCode).toBe(404);
    expect((await server.inject(`/v1/sandboxes/${"x".repeat(500)}`)).statusCode).toBe(404);
  });

  it("tell a bug's caller nothing but that it is one", async () => {
    const health = { health: () => Promise.reject(new Error("secret of the code")) };
    const answer = await (await app({ health })).inject("/health");
    expect([answer.statusCode, answer.json()]).toMatchObject([500, { code: "internal" }]);
    expect(answer.body).not.toContain("secret");
    expect(bugs.splice(0)).toHaveLength(1);
  });
});

describe("bad requests", () => {
  const create = (server: FastifyInstance, payload: object | string) =>
    server.inject({ method: "POST", url: "/v1/sandboxes", payload, headers: { "content-type": "application/json" } });

  it.each([
    [{}, /id is required/],
    [{ id: "-a" }, /id must be 1 to 64 letters/],
    [{ id: "a/b" }, /id must be/],
    [{ id: "a", memory: 5 }, /memory is not a field/],
    [{ id: "a", memory_mb: 1 }, /memory_mb must be >= 16/],
    [{ id: "a", memory_mb: "64" }, /memory_mb must be integer/],
    [{ id: "a", cpu: 1e9 }, /cpu must be <= 1024/],
    [{ id: "a", pids: 0 }, /pids must be >= 8/],
    [{ id: "a", max_lifetime_s: -1 }, /max_lifetime_s must be >= 0/],
    [{ id: "a", layers: ["../x"] }, /layers has "..\/x"/],
    [{ id: "a", layers: ["x", "x"] }, /names "x" twice/],
    [{ id: "a", allow_net: ["exa mple.org"] }, /"exa mple.org"/],
    [{ id: "a", allow_net: ["none", "example.org"] }, /none/],
    [{ id: "a", owner: "x".repeat(257) }, /owner must NOT have more than 256/],
    ["{", /Cannot read the body/],
    ["[]", /body must be object/],
    ['{"id":"a","__proto__":{}}', /Cannot read the body/],
  ])("of a create are refused with the field's name: $1", async (payload, message) => {
    const answer = await create(await app(), payload);
    expect(answer.json()).toMatchObject({ code: "invalid_request", error: message });
    expect(answer.statusCode).toBe(400);
    expect(machine.state()).toEqual([]);
  });

  it.each([
    [{}, /cmd is required/],
    [{ cmd: "" }, /cmd/],
    [{ cmd: [] }, /cmd/],
    [{ cmd: "a\0b" }, /zero character/],
    [{ cmd: "true", workdir: "relative" }, /workdir must be an absolute path/],
    [{ cmd: "true", workdir: "/a/../b" }, /workdir/],
    [{ cmd: "true", env: { "1A": "x" } }, /env has the name/],
    [{ cmd: "true", env: { A: 1 } }, /env.A must be string/],
    [{ cmd: "true", user: -1 }, /user/],
    [{ cmd: "true", user: "a b" }, /user must be/],
    [{ cmd: "true", timeout: "soon" }, /timeout must be a number/],
    [{ cmd: "x".repeat(65_537) }, /64 KiB/],
    [{ cmd: "true", tty: true }, /tty is not a field/],
  ])("of an exec are refused with the field's name: $1", async (payload, message) => {
    const server = await app();
    await create(server, { id: "a" });
    const answer = await server.inject({ method: "POST", url: "/v1/sandboxes/a/exec", payload });
    expect(answer.json()).toMatchObject({ code: "invalid_request", error: message });
    expect((await squashd.sandboxes.get("a")).exec_count).toBe(0);
  });

  it("of another type, or too large, are refused", async () => {
    const server = await app();
    const text = { "content-type": "text/plain" };
    const other = await server.inject({ method: "POST", url: "/v1/sandboxes", payload: "id=a", headers: text });
    expect([other.statusCode, other.json()]).toMatchObject([415, { code: "unsupported_media_type" }]);
    const large = await create(server, JSON.stringify({ id: "a", task: "x".repeat(1_100_000) }));
    expect([large.statusCode, large.json(), large.headers.connection]).toMatchObject([
      413,
      { code: "body_too_large" },
      "close",
    ]);
  });

  it("that are not HTTP, or have endless headers, are answered and hung up on", async () => {
    const server = await app();
    expect(await raw(server, "hello\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 [^]*"code":"invalid_request"/);
    const many = `GET /health HTTP/1.1\r\nHost: localhost\r\n${"X-Header: 1234567890\r\n".repeat(1_000)}\r\n`;
    expect(await raw(server, many)).toMatch(/^HTTP\/1\.1 431 [^]*16 KiB/);
    const smuggled =
      "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    expect(await raw(server, smuggled)).toMatch(/^HTTP\/1\.1 400 /);
  });
});

describe("a token", () => {
  it("is asked for everywhere but at /health, the page and the description", async () => {
    const server = await app({ authToken: token });
    for (const url of ["/v1/sandboxes", "/v1/modules", "/cgi-bin/api/sandboxes", "/metrics", "/v1/sandboxes/a/logs"]) {
      const answer = await server.inject(url);
      expect([url, answer.statusCode, answer.json()]).toMatchObject([url, 401, { code: "unauthorized" }]);
      expect(answer.headers["www-authenticate"]).toMatch(/^Bearer/);
    }
    for (const url of ["/health", "/cgi-bin/health", "/", "/openapi.json"]) {
      expect([url, (await server.inject(url)).statusCode]).toEqual([url, 200]);
    }
  });

  it("must be the whole token", async () => {
    const server = await app({ authToken: token });
    const ask = async (authorization: string) =>
      (await server.inject({ url: "/v1/sandboxes", headers: { authorization } })).statusCode;
    expect(await ask(`Bearer ${token}`)).toBe(200);
    expect(await ask(`bearer  ${token}`)).toBe(200);
    for (const wrong of ["", "x", token.slice(1), token.slice(0, -1), `${token}x`, token.toUpperCase()]) {
      expect([wrong, await ask(`Bearer ${wrong}`)]).toEqual([wrong, 401]);
    }
    expect(await ask(`Basic ${token}`)).toBe(401);
  });

  it("is asked for before a body is read", async () => {
    const server = await app({ authToken: token });
    const answer = await server.inject({ method: "POST", url: "/v1/sandboxes", payload: { id: "a" } });
    expect([answer.statusCode, machine.calls]).toEqual([401, []]);
  });
});

describe("another site's page", () => {
  it.each([
    [{ host: "localhost:7080" }, 200],
    [{ host: "127.0.0.1:7080" }, 200],
    [{ host: "[::1]:7080" }, 200],
    [{ host: "localhost:7080", origin: "http://localhost:7080" }, 200],
    [{ host: "evil.example:7080" }, 401],
    [{ host: "localhost:7080", origin: "http://evil.example" }, 401],
    [{ host: "localhost:7080", origin: "http://localhost:8080" }, 401],
    [{ host: "localhost:7080", origin: "null" }, 401],
  ])("cannot use a browser on this machine: %j", async (headers, status) => {
    const server = await app({ checkOrigin: true });
    expect((await server.inject({ url: "/v1/sandboxes", headers })).statusCode).toBe(status);
  });
});

describe("a client that goes away", () => {
  it("ends its command", async () => {
    const server = await app();
    await server.inject({ method: "POST", url: "/v1/sandboxes", payload: { id: "a" } });
    const began = new Promise<AbortSignal>((resolve) => {
      machine.runCommand = (_, signal) => {
        resolve(signal);
        return new Promise((_resolve, reject) =>
          signal.addEventListener("abort", () => reject(new SquashError("cancelled", "the caller has gone"))),
        );
      };
    });
    await server.listen({ host: "127.0.0.1", port: 0 });
    const client = new Client({ url: `http://127.0.0.1:${(server.server.address() as AddressInfo).port}` });
    const leaving = new AbortController();
    const running = client.sandbox("a").exec("sleep 1000", { signal: leaving.signal });
    const signal = await began;
    const ended = new Promise((resolve) => signal.addEventListener("abort", resolve));
    leaving.abort();
    await expect(running).rejects.toThrow();
    await ended;
    client.close();
  });
});

describe("the OpenAPI document", () => {
  it("is the one in docs/openapi.json (npm run openapi writes it)", async () => {
    const committed = readFileSync(new URL("../../../docs/openapi.json", import.meta.url), "utf8");
    expect(await makeDocument(readVersion())).toBe(committed);
  });

  it("is served, and describes every error code", async () => {
    const document = (await (await app()).inject("/openapi.json")).json<{
      openapi: string;
      components: { schemas: { Error: { properties: { code: { enum: string[] } } } } };
    }>();
    expect(document.openapi).toBe("3.1.0");
    expect(document.components.schemas.Error.properties.code.enum).toEqual(Object.keys(errorStatus));
  });
});
