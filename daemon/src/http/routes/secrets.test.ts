import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SecretAuditEntry, SecretInfo } from "@squash/sdk/protocol";
import type { FastifyInstance } from "fastify";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadConfig } from "../../config.js";
import type { PlaneSecrets } from "../../core/egress/plane.js";
import type { DomainEvent } from "../../core/events.js";
import { FakeMachine } from "../../core/testing/fake-machine.js";
import { fakeSquashd } from "../../core/testing/fake-squashd.js";
import { DiffAnswers } from "../../diff/diff-answers.js";
import { Metrics } from "../../metrics.js";
import { SecretHouse } from "../../secret-house.js";
import { FakeJobs } from "../testing/fake-jobs.js";
import { FakeModules } from "../testing/fake-modules.js";
import { makeApp } from "../app.js";

const canary = "canary-7b1f0c93aa52";
const body = { value: canary, allowed_hosts: ["api.example.com"] };
let folder: string;
let machine: FakeMachine;
let server: FastifyInstance;
let house: SecretHouse;
let told: PlaneSecrets[];
let events: DomainEvent[];
let bugs: unknown[];
const metrics = new Metrics();

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "secret-routes-"));
  [told, events, bugs] = [[], [], []];
  await start();
});
afterEach(async () => {
  await end();
  rmSync(folder, { recursive: true });
  expect(JSON.stringify([events, bugs])).not.toContain("canary");
  expect(bugs).toEqual([]);
});

async function start(env: Record<string, string> = {}): Promise<void> {
  machine = new FakeMachine();
  const config = loadConfig({ SQUASH_DATA_DIR: folder, ...env });
  const emit = (event: DomainEvent): void => {
    events.push(event);
    metrics.observe(event);
  };
  house = await SecretHouse.open({ config, emit, report: (error) => bugs.push(error) });
  const squashd = fakeSquashd(machine);
  const { networks } = squashd;
  await house.start({
    setSecrets: (secrets) => {
      told.push(secrets);
      networks.secrets.clear();
      for (const { name } of secrets.secrets) networks.secrets.add(name);
      return Promise.resolve();
    },
    trusted: () => [],
  });
  server = await makeApp({
    version: "1.2.3",
    sandboxes: squashd.sandboxes,
    time: squashd,
    diffs: new DiffAnswers(squashd.diffs),
    modules: new FakeModules(),
    jobs: new FakeJobs(),
    health: { health: () => Promise.reject(new Error("nobody asks for it here")) },
    decisions: { read: () => Promise.resolve([]) },
    secrets: house,
    authorities: house,
    metrics,
    webDir: import.meta.dirname,
    authToken: "",
    checkOrigin: false,
    reportBug: (error) => bugs.push(error),
  });
}

async function end(): Promise<void> {
  await server.close();
  await house.close();
}

/** Status and body; in no answer is there anything of a value. */
async function ask(
  method: "GET" | "PUT" | "POST" | "DELETE",
  url: string,
  payload?: object | string,
): Promise<[number, unknown]> {
  const headers = { "content-type": "application/json" };
  const answer = await server.inject({ method, url, ...(payload !== undefined && { payload, headers }) });
  expect(answer.payload).not.toContain("canary");
  return [answer.statusCode, answer.payload === "" ? null : answer.json()];
}

const put = (name: string, more: object = {}) => ask("PUT", `/v1/secrets/${name}`, { ...body, ...more });

describe("/v1/secrets", () => {
  it("takes a secret in, shows all of it but its value, and lets go of it", async () => {
    const [status, made] = await put("API_KEY", { methods: ["get"], allowed_paths: ["/v1"] });
    const shown: SecretInfo = {
      name: "API_KEY",
      placeholder: expect.stringMatching(/^\w{6}-\w{12}$/) as string,
      allowed_hosts: ["api.example.com"],
      allowed_paths: ["/v1"],
      methods: ["GET"],
      locations: ["header", "basic"],
      inject_header: null,
      allow_plaintext: false,
      elsewhere: "refuse",
      sigv4: null,
      oauth2: null,
      uses: 0,
      refusals: 0,
      last_used: null,
    };
    expect([status, made]).toEqual([200, shown]);
    expect(await ask("GET", "/v1/secrets")).toEqual([200, { secrets: [made], problem: null }]);
    expect(told.at(-1)?.secrets).toMatchObject([{ name: "API_KEY", value: canary }]);
    expect(await ask("DELETE", "/v1/secrets/API_KEY")).toEqual([204, null]);
    expect(told.at(-1)?.secrets).toEqual([]);
    expect(await ask("DELETE", "/v1/secrets/API_KEY")).toMatchObject([404, { code: "secret_not_found" }]);
    expect(await ask("GET", "/v1/secrets/API_KEY")).toMatchObject([405, { code: "method_not_allowed" }]);
  });

  it("shows of OAuth2 where its token comes from, and nothing that it is got with", async () => {
    const grant = { token_url: "https://a.example/t", client_id: "me", client_secret: canary, refresh_token: canary };
    const [status, shown] = await put("TOKEN", { value: undefined, oauth2: grant });
    const oauth2 = { token_url: "https://a.example/t", client_id: "me", grant: "refresh_token", scope: null };
    expect([status, shown]).toMatchObject([200, { oauth2 }]);
    expect((shown as SecretInfo).oauth2).toEqual(oauth2);
    expect(told.at(-1)?.secrets).toMatchObject([{ oauth2: { clientSecret: canary } }]);
  });

  it.each([
    ["A", { ...body, allowed_host: [] }, /allowed_host is not a field/],
    ["A", { value: canary }, /allowed_hosts is required/],
    ["A", { ...body, value: 5 }, /value must be string/],
    ["A", { ...body, value: `${canary}\n` }, /"A": value has a line break/],
    ["A", { ...body, allowed_hosts: ["*"] }, /"A": allowed_hosts has, at 1/],
    ["A", { ...body, placeholder: `xx-${canary}` }, /"A": placeholder contains the value/],
    ["A-B", body, /its name must be/],
    ["A", `{"value": "${canary}", oops`, /Cannot read the (body|request)/],
    ["A", `"${canary}"`, /must be object/],
    ["A", { ...body, value: canary.repeat(4_000) }, /value must NOT have more than/],
  ])("refuses secret %s of %j, and shows nothing of a value", async (name, payload, said) => {
    const [status, answer] = await ask("PUT", `/v1/secrets/${name}`, payload);
    expect([status, answer]).toMatchObject([
      400,
      { code: "invalid_request", error: expect.stringMatching(said) as string },
    ]);
  });

  it("are encrypted with another key where they are encrypted", async () => {
    expect(await ask("POST", "/v1/secrets/rekey")).toMatchObject([400, { code: "invalid_request" }]);
    await end();
    const keyFile = join(folder, "key");
    writeFileSync(keyFile, Buffer.alloc(32, 7), { mode: 0o600 });
    await start({ SQUASH_SECRETS_KEY_FILE: keyFile });
    await put("API_KEY");
    expect(await ask("POST", "/v1/secrets/rekey")).toEqual([204, null]);
    expect(readFileSync(keyFile).equals(Buffer.alloc(32, 7))).toBe(false);
    expect(told.at(-1)?.secrets).toMatchObject([{ name: "API_KEY", value: canary }]);
  });

  it("says what is wrong with the file, and changes nothing then", async () => {
    await put("A");
    writeFileSync(join(folder, "secrets.json"), `{"secrets": {"A": {"value": "${canary}" oops`);
    const problem = expect.stringContaining("is not JSON") as string;
    await expect.poll(() => house.health).toEqual({ count: 1, usable: false });
    expect(await ask("GET", "/v1/secrets")).toMatchObject([200, { secrets: [{ name: "A" }], problem }]);
    expect(await put("B")).toMatchObject([409, { code: "secrets_unusable", error: problem }]);
    expect(await ask("DELETE", "/v1/secrets/A")).toMatchObject([409, { code: "secrets_unusable" }]);
    expect(events).toContainEqual({ type: "secrets.problem", problem });
  });
});

describe("uses", () => {
  const use = (more: object = {}) => ({
    ...{ time: "2026-01-01T00:00:00.000Z", sandbox: "a", secret: "A", host: "api.example.com", method: "GET" },
    ...{ path: "/v1?user=bob", locations: ["header" as const], status: 200, bytes: 0, allowed: true, reason: null },
    ...more,
  });

  it("are counted, kept over a restart, and found in the audit log by what they were", async () => {
    await put("A");
    house.used(use());
    house.used(use({ sandbox: "b", host: "evil.example", allowed: false, status: null, reason: "not for this host" }));
    house.used(use({ secret: "B", path: `/${"x".repeat(5_000)}` }));
    const figures = { uses: 1, refusals: 1, last_used: "2026-01-01T00:00:00.000Z" };
    expect(await ask("GET", "/v1/secrets")).toMatchObject([200, { secrets: [figures] }]);
    const found = async (query: string): Promise<SecretAuditEntry[]> =>
      (await ask("GET", `/v1/secrets/audit${query}`))[1] as SecretAuditEntry[];
    expect((await found("")).map(({ secret, verdict }) => `${secret} ${verdict}`)).toEqual([
      "A allowed",
      "A refused",
      "B allowed",
    ]);
    const { allowed: _, ...first } = use({ path: "/v1?user=…" });
    expect(await found("?sandbox=a&secret=A")).toEqual([{ ...first, verdict: "allowed" }]);
    expect(await found("?verdict=refused")).toMatchObject([{ sandbox: "b", reason: "not for this host" }]);
    expect(await found("?limit=1")).toMatchObject([
      { secret: "B", path: expect.stringMatching(/^.{1025}$/) as string },
    ]);
    expect(await ask("GET", "/v1/secrets/audit?verdict=both")).toMatchObject([400, { code: "invalid_request" }]);
    expect(await ask("GET", "/v1/secrets/audit?limit=-1")).toMatchObject([400, { code: "invalid_request" }]);
    const text = await metrics.render();
    expect(text).toContain('squash_secret_uses_total{secret="A",outcome="sent"} 1');
    expect(text).toContain('squash_secret_uses_total{secret="A",outcome="refused"} 1');
    await end();
    await start();
    expect(await ask("GET", "/v1/secrets")).toMatchObject([200, { secrets: [figures] }]);
    expect(await found("?secret=A")).toHaveLength(2);
  });
});

describe("secrets of a sandbox", () => {
  const create = (more: object) => ask("POST", "/v1/sandboxes", { id: "a", ...more });
  const grants = async (id = "a"): Promise<unknown> => {
    const [, found] = await ask("GET", `/v1/sandboxes/${id}`);
    const { secrets, secrets_granted } = found as { secrets: unknown; secrets_granted: unknown };
    return [secrets, secrets_granted];
  };

  it("are all that there are where none are named, those included that come later", async () => {
    await put("A");
    await create({});
    expect(await grants()).toEqual([null, ["A"]]);
    await put("B");
    expect(await grants()).toEqual([null, ["A", "B"]]);
  });

  it("are those that were named, and others when that is changed", async () => {
    await put("A");
    await put("B");
    expect(await create({ secrets: ["A"] })).toMatchObject([201, { secrets: ["A"], secrets_granted: ["A"] }]);
    const change = (secrets: unknown) => ask("PUT", "/v1/sandboxes/a/secrets", { secrets });
    expect(await change([])).toMatchObject([200, { secrets: [], secrets_granted: [] }]);
    expect(await change(["B", "A"])).toMatchObject([200, { secrets: ["B", "A"], secrets_granted: ["A", "B"] }]);
    expect(await change(null)).toMatchObject([200, { secrets: null }]);
    expect(await change(["GONE"])).toMatchObject([
      400,
      { code: "invalid_request", error: expect.stringContaining("GONE") },
    ]);
    expect(await ask("PUT", "/v1/sandboxes/a/secrets", {})).toMatchObject([400, { code: "invalid_request" }]);
    expect(await ask("PUT", "/v1/sandboxes/none/secrets", { secrets: [] })).toMatchObject([404, {}]);
    expect(await grants()).toEqual([null, ["A", "B"]]);
  });

  it("stay as they were when the record cannot be written", async () => {
    await put("A");
    await create({ secrets: ["A"] });
    machine.failing.set("writeRecord", 1);
    expect((await ask("PUT", "/v1/sandboxes/a/secrets", { secrets: [] }))[0]).toBe(500);
    expect(await grants()).toEqual([["A"], ["A"]]);
    bugs.length = 0;
  });

  it("go to forks, unless those are given others", async () => {
    await put("A");
    await put("B");
    await create({ secrets: ["A"] });
    await ask("POST", "/v1/sandboxes/a/fork", { target_id: "same" });
    await ask("POST", "/v1/sandboxes/a/fork", { target_id: "other", secrets: ["B"] });
    await ask("POST", "/v1/sandboxes/a/fork", { target_id: "free", secrets: null });
    expect([await grants("same"), await grants("other"), await grants("free")]).toEqual([
      [["A"], ["A"]],
      [["B"], ["B"]],
      [null, ["A", "B"]],
    ]);
    expect(await ask("POST", "/v1/sandboxes/a/fork", { target_id: "no", secrets: ["GONE"] })).toMatchObject([400, {}]);
  });

  it("that there are none of are refused before anything is made", async () => {
    expect(await create({ secrets: ["GONE"] })).toMatchObject([400, { code: "invalid_request" }]);
    expect((await ask("GET", "/v1/sandboxes"))[1]).toEqual([]);
  });
});

describe("/v1/ca", () => {
  it("shows the authority, and another one once it was replaced, which the proxy has besides the old one", async () => {
    const [status, first] = await ask("GET", "/v1/ca");
    expect([status, first]).toMatchObject([
      200,
      { certificate_pem: expect.stringContaining("BEGIN CERTIFICATE") as string },
    ]);
    const [, second] = await ask("POST", "/v1/ca/rotate");
    const fingerprints = [second, first].map((each) => (each as { fingerprint: string }).fingerprint);
    expect(fingerprints[0]).not.toBe(fingerprints[1]);
    expect(await ask("GET", "/v1/ca")).toEqual([200, second]);
    expect(told.at(-1)?.authorities.map(({ fingerprint }) => fingerprint)).toEqual(fingerprints);
    expect(JSON.stringify([first, second])).not.toContain("PRIVATE KEY");
  });

  it("is not there without a network", async () => {
    await end();
    await start({ SQUASH_SUBNET: "none" });
    expect(await ask("GET", "/v1/ca")).toMatchObject([409, { code: "network_off" }]);
    expect(await ask("POST", "/v1/ca/rotate")).toMatchObject([409, { code: "network_off" }]);
  });

  it("that is damaged is reported and not replaced, and the rest works", async () => {
    await end();
    writeFileSync(join(folder, "proxy-ca/ca.crt"), "damaged");
    await start();
    expect((await ask("GET", "/v1/ca"))[0]).toBe(500);
    expect(events).toContainEqual({
      type: "secrets.problem",
      problem: expect.stringContaining("certificate authority") as string,
    });
    expect((await put("A"))[0]).toBe(200);
  });
});
