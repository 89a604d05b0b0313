import type { NetworkDecision } from "@squash/sdk/protocol";
import type { FastifyInstance } from "fastify";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeMachine } from "../../core/testing/fake-machine.js";
import { DiffAnswers } from "../../diff/diff-answers.js";
import { fakeSquashd } from "../../core/testing/fake-squashd.js";
import { Metrics } from "../../metrics.js";
import { FakeJobs } from "../testing/fake-jobs.js";
import { FakeModules } from "../testing/fake-modules.js";
import { FakeSecrets } from "../testing/fake-secrets.js";
import { makeApp, type AppOptions } from "../app.js";

let machine: FakeMachine;
let bugs: unknown[];
const apps: FastifyInstance[] = [];

beforeEach(() => {
  machine = new FakeMachine();
  bugs = [];
});
afterEach(async () => {
  for (const each of apps.splice(0)) await each.close();
  expect(bugs).toEqual([]);
});

async function app(options: Partial<AppOptions> = {}): Promise<FastifyInstance> {
  const unused = (): Promise<never> => Promise.reject(new Error("nobody asks for it here"));
  const squashd = fakeSquashd(machine);
  const made = await makeApp({
    version: "1.2.3",
    sandboxes: squashd.sandboxes,
    time: squashd,
    diffs: new DiffAnswers(squashd.diffs),
    modules: new FakeModules(),
    jobs: new FakeJobs(),
    health: { health: unused },
    decisions: { read: () => Promise.resolve([]) },
    secrets: new FakeSecrets(),
    authorities: new FakeSecrets(),
    metrics: new Metrics(),
    webDir: import.meta.dirname,
    authToken: "",
    checkOrigin: false,
    reportBug: (error) => bugs.push(error),
    ...options,
  });
  apps.push(made);
  return made;
}

describe("the network of a sandbox", () => {
  const url = "/v1/sandboxes/a/network";

  async function withSandbox(options: Partial<AppOptions> = {}): Promise<FastifyInstance> {
    const server = await app(options);
    await server.inject({ method: "POST", url: "/v1/sandboxes", payload: { id: "a", allow_net: ["example.org"] } });
    return server;
  }

  it("is shown, and replaced as a whole", async () => {
    const server = await withSandbox();
    expect((await server.inject(url)).json()).toMatchObject({
      allow_net: ["example.org"],
      deny_net: [],
      net_limits: {},
      address: "10.200.0.2",
      gateway: "10.200.0.1",
      dns_limited: 9,
    });
    const wish = { allow_net: null, deny_net: ["1.2.3.4"], net_limits: { up_kbit: 64, connections_per_s: 100_000 } };
    const changed = await server.inject({ method: "PUT", url, payload: wish });
    expect([changed.statusCode, changed.json()]).toMatchObject([200, wish]);
    const closed = await server.inject({ method: "PUT", url, payload: { allow_net: ["none"] } });
    expect(closed.json()).toMatchObject({ allow_net: ["none"], deny_net: [], net_limits: {} });
    expect((await server.inject("/v1/sandboxes/a")).json()).toMatchObject({ allow_net: ["none"], deny_net: [] });
    expect((await server.inject("/cgi-bin/api/sandboxes/a/network")).json()).toMatchObject({ allow_net: ["none"] });
    expect(machine.state().filter((line) => line.includes("network"))).toEqual([expect.stringContaining("none")]);
  });

  it.each([
    [{}, /allow_net is required/],
    [{ deny_net: ["example.org"] }, /allow_net is required/],
    [{ allow_net: null, allow: [] }, /allow is not a field/],
    [{ allow_net: "example.org" }, /allow_net/],
    [{ allow_net: [5] }, /allow_net/],
    [{ allow_net: ["exa mple.org"] }, /"exa mple.org"/],
    [{ allow_net: ["10.200.0.9"] }, /own network/],
    [{ allow_net: ["x".repeat(301)] }, /300/],
    [{ allow_net: Array.from({ length: 257 }, (_, at) => `h${at}.example`) }, /256/],
    [{ allow_net: null, deny_net: null }, /deny_net must be array/],
    [{ allow_net: null, net_limits: null }, /net_limits must be object/],
    [{ allow_net: null, net_limits: { down: 64 } }, /down is not a field/],
    [{ allow_net: null, net_limits: { down_kbit: 63 } }, /down_kbit must be >= 64/],
    [{ allow_net: null, net_limits: { up_kbit: 100_000_001 } }, /up_kbit must be <= 100000000/],
    [{ allow_net: null, net_limits: { up_kbit: "64" } }, /up_kbit must be integer/],
    [{ allow_net: null, net_limits: { up_kbit: 64.5 } }, /up_kbit must be integer/],
    [{ allow_net: null, net_limits: { connections_per_s: 0 } }, /connections_per_s must be >= 1/],
    [{ allow_net: null, net_limits: { connections_per_s: 100_001 } }, /connections_per_s must be <= 100000/],
  ])("is not replaced by %j", async (payload, message) => {
    const server = await withSandbox();
    const answer = await server.inject({ method: "PUT", url, payload });
    expect([answer.statusCode, answer.json()]).toMatchObject([400, { code: "invalid_request", error: message }]);
    expect((await server.inject(url)).json()).toMatchObject({ allow_net: ["example.org"] });
  });

  it.each([
    ["", 200],
    ["?limit=0", 0],
    ["?limit=7", 7],
    ["?limit=1000", 1_000],
    ["?limit=9999", 1_000],
  ])("has a log: %j asks for %i", async (query, limit) => {
    const asked: unknown[] = [];
    const decisions = [{ sandbox: "a", rule: "r" } as NetworkDecision];
    const read = (...args: unknown[]) => {
      asked.push(args);
      return Promise.resolve(decisions);
    };
    const answer = await (await app({ decisions: { read } })).inject(`${url}/log${query}`);
    // also after the end of the sandbox, hence of one that is not there
    expect([answer.statusCode, answer.json(), asked]).toEqual([200, decisions, [["a", limit]]]);
  });

  it.each(["limit=", "limit=-1", "limit=1.5", "limit=10000", "limit=all", "limit=1&limit=2"])(
    "has no log for ?%s",
    async (query) => {
      const answer = await (await app()).inject(`${url}/log?${query}`);
      expect([answer.statusCode, answer.json()]).toMatchObject([400, { code: "invalid_request" }]);
    },
  );

  it("is only that of a sandbox that is there, with a name that can be one", async () => {
    const server = await app();
    const missing = [404, { code: "sandbox_not_found" }];
    for (const each of [url, "/v1/sandboxes/-a/network", "/v1/sandboxes/-a/network/log"]) {
      const answer = await server.inject(each);
      expect([answer.statusCode, answer.json()]).toMatchObject(missing);
    }
    const put = await server.inject({ method: "PUT", url, payload: { allow_net: null } });
    expect([put.statusCode, put.json()]).toMatchObject(missing);
    const other = await server.inject({ method: "DELETE", url });
    expect([other.statusCode, other.headers.allow]).toEqual([405, "GET, HEAD, PUT"]);
  });

  it("is shown and changed with the token only", async () => {
    const server = await app({ authToken: "correct-horse-battery-staple" });
    expect((await server.inject(url)).statusCode).toBe(401);
    expect((await server.inject(`${url}/log`)).statusCode).toBe(401);
    expect((await server.inject({ method: "PUT", url, payload: { allow_net: null } })).statusCode).toBe(401);
  });
});
