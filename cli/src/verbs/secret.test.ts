import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { FakeReply, runFake, type FakeRun } from "../testing/fake-context.js";

const canary = "canary-7b1f0c93aa52";
const info = {
  name: "KEY",
  placeholder: "placeholder-1",
  allowed_hosts: ["api.example.com"],
  allowed_paths: null,
  methods: null,
  locations: ["header", "basic"],
  inject_header: null,
  allow_plaintext: false,
  elsewhere: "refuse",
  sigv4: null,
  oauth2: null,
  uses: 3,
  refusals: 1,
  last_used: "2026-01-01T00:08:00Z",
};
let folder: string;

beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), "sq-secret-"))));
afterEach(() => rmSync(folder, { recursive: true }));

async function set(args: readonly string[], input: string | PassThrough | Buffer = ""): Promise<FakeRun> {
  return runFake(["secret", "set", "KEY", ...args], { routes: { "PUT /v1/secrets/KEY": info }, input });
}

/** What was sent, and nothing of the value is shown. */
async function sent(args: readonly string[], input: string | PassThrough | Buffer = ""): Promise<unknown> {
  const { status, stdout, stderr, requests } = await set(args, input);
  expect({ status, stderr: stderr.replace("value of KEY: \n", "") }).toEqual({ status: 0, stderr: "" });
  expect(stdout + stderr).not.toContain("canary");
  return JSON.parse(requests[0]?.slice("PUT /v1/secrets/KEY ".length) ?? "");
}

const host = ["--host", "api.example.com"];
const plain = { allowed_hosts: ["api.example.com"], value: canary };

describe("sq secret set", () => {
  it("sends what it reads from standard input, without the line feed at its end", async () => {
    expect(await sent(host, `${canary}\n`)).toEqual(plain);
    expect(await sent(host, `${canary}\r\n`)).toEqual(plain);
    expect(await sent(host, `${canary}\n\n`)).toEqual({ ...plain, value: `${canary}\n` });
  });

  it("sends what it reads from a file", async () => {
    writeFileSync(join(folder, "key"), `${canary}\n`);
    expect(await sent([...host, "--value-file", join(folder, "key")])).toEqual(plain);
  });

  it("asks for it at a terminal, shows nothing of it, and leaves the terminal as it was", async () => {
    const modes: boolean[] = [];
    const terminal = Object.assign(new PassThrough(), { isTTY: true, setRawMode: (on: boolean) => modes.push(on) });
    for (const keys of ["canary-x", "\x7f", "7b1f0c93", "aa52\rignored"]) terminal.write(keys);
    expect(await sent(host, terminal)).toEqual(plain);
    expect(modes).toEqual([true, false]);
  });

  it("ends at Ctrl-C at a terminal, and sends nothing", async () => {
    const modes: boolean[] = [];
    const terminal = Object.assign(new PassThrough(), { isTTY: true, setRawMode: (on: boolean) => modes.push(on) });
    terminal.write("canary\x03");
    expect(await set(host, terminal)).toMatchObject({ status: 130, requests: [] });
    expect(modes).toEqual([true, false]);
  });

  it("sends all rules, and no value where that is to stay", async () => {
    const rules = [
      ...["--host", "*.b.example", "--path", "/v1", "--path", "/v2", "--method", "GET", "--location", "body"],
      ...["--inject-header", "X-Key: key {placeholder}", "--allow-plaintext", "--pass-elsewhere", "--keep-value"],
      ...["--sigv4-key", "OTHER", "--sigv4-token", "THIRD", "--placeholder", "placeholder-1"],
    ];
    expect(await sent([...host, ...rules])).toEqual({
      allowed_hosts: ["api.example.com", "*.b.example"],
      allowed_paths: ["/v1", "/v2"],
      methods: ["GET"],
      locations: ["body"],
      inject_header: { name: "X-Key", value: "key {placeholder}" },
      allow_plaintext: true,
      elsewhere: "pass",
      sigv4: { secret_access_key: "OTHER", session_token: "THIRD" },
      placeholder: "placeholder-1",
    });
  });

  it("sends how a token is got, with what is secret of it from files", async () => {
    writeFileSync(join(folder, "secret"), `${canary}\n`);
    const oauth2 = ["--oauth2-url", "https://a.example/t", "--oauth2-client", "me", "--oauth2-scope", "all"];
    expect(await sent([...host, ...oauth2, "--oauth2-client-secret-file", join(folder, "secret")])).toEqual({
      allowed_hosts: ["api.example.com"],
      oauth2: { token_url: "https://a.example/t", client_id: "me", scope: "all", client_secret: canary },
    });
  });

  it.each([
    [[], canary, /say where it may be sent/],
    [[...host, "--nowhere"], canary, /say where it may be sent/],
    [host, "", /the value is empty|value: it is empty/],
    [host, Buffer.from([0xff, 0xfe]), /it is not UTF-8/],
    [host, "x".repeat(70_000), /it is larger than 65536 bytes/],
    [[...host, "--value-file", "/nonexistent/key"], "", /Cannot read "\/nonexistent\/key"/],
    [[...host, "--keep-value", "--value-file", "x"], "", /exclude each other/],
    [[...host, "--location", "cookie"], canary, /--location must be among/],
    [[...host, "--sigv4-token", "T"], canary, /--sigv4-token goes with --sigv4-key/],
    [[...host, "--oauth2-url", "https://a.example"], canary, /OAuth2 needs/],
    [[...host, canary], "", /too many arguments/],
    [[...host, "--inject-header", "X-Key"], canary, /must look like 'Name: value'/],
  ])("with %j is a mistake of usage, and sends nothing", async (args, input, said) => {
    const run = await set(args, input);
    expect(run).toMatchObject({ status: 2, requests: [], stderr: expect.stringMatching(said) as string });
  });
});

describe("sq secret", () => {
  it("list shows rules and uses, and fails when the file is not as it must be", async () => {
    const routes = { "GET /v1/secrets": { secrets: [info], problem: null } };
    expect(await runFake(["secret", "list"], { routes })).toMatchObject({
      status: 0,
      stdout: [
        "NAME  HOSTS            PLACEHOLDER    USES  REFUSED  LAST USE",
        "KEY   api.example.com  placeholder-1     3        1  2m ago",
        "",
      ].join("\n"),
    });
    const broken = { "GET /v1/secrets": { secrets: [info], problem: "Cannot use it\u001b" } };
    expect(await runFake(["secret", "list"], { routes: broken })).toMatchObject({
      status: 1,
      stdout: expect.stringContaining("KEY") as string,
      stderr: "sq: Cannot use it\n",
    });
  });

  it("rm removes each", async () => {
    const routes = { "DELETE /v1/secrets/[AB]": undefined };
    const run = await runFake(["secret", "rm", "A", "B"], { routes });
    expect(run).toMatchObject({ status: 0, requests: ["DELETE /v1/secrets/A", "DELETE /v1/secrets/B"] });
    const gone = { "DELETE /v1/secrets/A": new FakeReply(404, { error: "there is none", code: "secret_not_found" }) };
    expect(await runFake(["secret", "rm", "A"], { routes: gone })).toMatchObject({
      status: 1,
      stderr: "sq: there is none\n",
    });
  });

  it("rekey asks for another key, and says nothing", async () => {
    const run = await runFake(["secret", "rekey"], { routes: { "POST /v1/secrets/rekey": undefined } });
    expect(run).toMatchObject({ status: 0, stdout: "", requests: ["POST /v1/secrets/rekey"] });
  });

  it.each([
    [["A", "B"], '{"secrets":["A","B"]}'],
    [["--none"], '{"secrets":[]}'],
    [["--all"], '{"secrets":null}'],
  ])("grant %j sends %s", async (args, body) => {
    const routes = {
      "PUT /v1/sandboxes/box/secrets": { secrets: null, secrets_granted: ["A"], secrets_trusted: true },
    };
    const run = await runFake(["secret", "grant", "box", ...args], { routes });
    expect(run).toMatchObject({ status: 0, stdout: "all: A\n", requests: [`PUT /v1/sandboxes/box/secrets ${body}`] });
    expect(run.stderr).toBe("");
  });

  it("grant tells of a root that does not trust the proxy", async () => {
    const answer = { id: "box", secrets: ["A"], secrets_granted: ["A"], secrets_trusted: false };
    const run = await runFake(["secret", "grant", "box", "A"], {
      routes: { "PUT /v1/sandboxes/box/secrets": answer },
    });
    expect([run.status, run.stderr]).toEqual([0, expect.stringContaining("box does not trust the proxy yet")]);
    const none = { "PUT /v1/sandboxes/box/secrets": { ...answer, secrets: [], secrets_granted: [] } };
    expect((await runFake(["secret", "grant", "box", "--none"], { routes: none })).stderr).toBe("");
  });

  it.each([[[]], [["A", "--all"]], [["--all", "--none"]]])("grant %j is a mistake of usage", async (args) => {
    expect(await runFake(["secret", "grant", "box", ...args])).toMatchObject({ status: 2, requests: [] });
  });

  it("audit asks for what is wanted, and shows it", async () => {
    const entry = {
      ...{
        time: "2026-01-01T00:00:00Z",
        sandbox: "box",
        secret: "KEY",
        host: "evil.example",
        method: "GET",
        path: "/x",
      },
      ...{ locations: ["header"], status: null, bytes: 0, verdict: "refused", reason: "not for this host" },
    };
    const routes = { "GET /v1/secrets/audit.*": [entry] };
    const args = ["--sandbox", "box", "--secret", "KEY", "--refused", "-n", "5"];
    const run = await runFake(["secret", "audit", ...args], { routes });
    expect(run.requests).toEqual(["GET /v1/secrets/audit?sandbox=box&secret=KEY&verdict=refused&limit=5"]);
    expect(run.stdout.split("\n")[1]).toBe(
      "2026-01-01T00:00:00Z  box      KEY     refused  GET     evil.example/x  header  not for this host",
    );
  });
});

describe("sq ca", () => {
  const authority = { fingerprint: "f00d", certificate_pem: "-----BEGIN\n", not_after: "2036-01-01T00:00:00Z" };

  it("shows the authority, or its certificate alone, and has another one made", async () => {
    const routes = { "GET /v1/ca": authority, "POST /v1/ca/rotate": { ...authority, fingerprint: "cafe" } };
    const show = await runFake(["ca", "show"], { routes });
    expect(show.stdout).toBe("fingerprint  f00d\ngood until   2036-01-01T00:00:00Z\n");
    expect((await runFake(["ca", "show", "--pem"], { routes })).stdout).toBe("-----BEGIN\n");
    expect(await runFake(["ca", "rotate"], { routes })).toMatchObject({
      stdout: expect.stringContaining("cafe") as string,
      requests: ["POST /v1/ca/rotate"],
    });
  });
});

describe("sq create and sq fork", () => {
  it.each([
    ["none", []],
    ["all", null],
    ["A, B", ["A", "B"]],
  ])("--secrets %s grants %j", async (text, secrets) => {
    const routes = { "POST /v1/sandboxes": { id: "box" }, "POST /v1/sandboxes/box/fork": [{ id: "twin" }] };
    const created = await runFake(["create", "box", "--secrets", text], { routes });
    expect(created.requests).toEqual([`POST /v1/sandboxes ${JSON.stringify({ secrets, id: "box" })}`]);
    const forked = await runFake(["fork", "box", "--secrets", text], { routes });
    expect(forked.requests).toEqual([`POST /v1/sandboxes/box/fork ${JSON.stringify({ secrets })}`]);
  });
});
