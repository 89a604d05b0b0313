import type { FastifyInstance } from "fastify";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DiffAnswers } from "../../diff/diff-answers.js";
import { FakeMachine } from "../../core/testing/fake-machine.js";
import { fakeSquashd } from "../../core/testing/fake-squashd.js";
import { Metrics } from "../../metrics.js";
import { makeApp } from "../app.js";
import { FakeJobs } from "../testing/fake-jobs.js";
import { FakeModules } from "../testing/fake-modules.js";
import { FakeSecrets } from "../testing/fake-secrets.js";

let server: FastifyInstance;
let jobs: FakeJobs;
let bugs: unknown[];

beforeEach(async () => {
  const unused = (): Promise<never> => Promise.reject(new Error("nobody asks for it here"));
  const squashd = fakeSquashd(new FakeMachine());
  bugs = [];
  jobs = new FakeJobs();
  server = await makeApp({
    version: "1.2.3",
    sandboxes: squashd.sandboxes,
    time: squashd,
    diffs: new DiffAnswers(squashd.diffs),
    modules: new FakeModules(),
    jobs,
    health: { health: unused },
    decisions: { read: () => Promise.resolve([]) },
    secrets: new FakeSecrets(),
    authorities: new FakeSecrets(),
    metrics: new Metrics(),
    webDir: import.meta.dirname,
    authToken: "",
    checkOrigin: false,
    reportBug: (error) => bugs.push(error),
  });
});
afterEach(async () => {
  await server.close();
  expect(bugs).toEqual([]);
});

/** Status, and the answer or the code of an error. */
async function ask(method: "GET" | "POST" | "PUT", path: string, payload?: object): Promise<[number, unknown]> {
  const reply = await server.inject({ method, url: `/v1/sandboxes${path}`, ...(payload && { payload }) });
  const value: unknown = reply.body === "" ? null : reply.json();
  const isError = reply.statusCode >= 400;
  return [reply.statusCode, isError ? (value as { code: string }).code : value];
}

describe("the retention of a sandbox", () => {
  it("is said at its creation, shown, and replaced as a whole", async () => {
    const [status, created] = await ask("POST", "", { id: "a", retention: { keep_last: 2 } });
    expect([status, created]).toMatchObject([201, { retention: { keep_last: 2, keep_for_s: 0 } }]);
    for (const label of ["one", "two"]) await ask("POST", "/a/snapshot", { label });
    expect(await ask("PUT", "/a/retention", { keep_for_s: 60 })).toEqual([
      200,
      { keep_last: 0, keep_for_s: 60, removed: [] },
    ]);
    expect(await ask("PUT", "/a/retention", { keep_last: 1 })).toMatchObject([200, { removed: ["one"] }]);
    expect(await ask("GET", "/a")).toMatchObject([200, { retention: { keep_last: 1, keep_for_s: 0 } }]);
  });

  it.each([
    [{ keep_last: -1 }],
    [{ keep_last: 257 }],
    [{ keep_last: 1.5 }],
    [{ keep_last: "1" }],
    [{ keep_for_s: 1e12 }],
    [{ keep_for: 60 }],
    [[]],
  ])("cannot be %j", async (request) => {
    await ask("POST", "", { id: "a" });
    expect(await ask("PUT", "/a/retention", request)).toEqual([400, "invalid_request"]);
    expect(await ask("POST", "", { id: "b", retention: request })).toEqual([400, "invalid_request"]);
  });

  it("is of a sandbox that there is", async () => {
    expect(await ask("PUT", "/none/retention", {})).toEqual([404, "sandbox_not_found"]);
    expect(await ask("PUT", "/..%2f/retention", {})).toEqual([404, "sandbox_not_found"]);
  });
});

describe("a snapshot", () => {
  it("has who took it and by what means, and can be pinned", async () => {
    await ask("POST", "", { id: "a", owner: "ann" });
    await ask("POST", "/a/snapshot", { label: "one" });
    await ask("POST", "/a/snapshot", { label: "two", by: "bob", origin: "cli", pinned: true });
    expect(await ask("GET", "/a/history")).toMatchObject([
      200,
      [
        { label: "one", by: "ann", origin: "api", pinned: false, total_size: 4096, sha256: null, head: false },
        { label: "two", by: "bob", origin: "cli", pinned: true, head: true },
      ],
    ]);
    expect(await ask("PUT", "/a/snapshots/one", { pinned: true })).toMatchObject([200, { pinned: true }]);
    expect(await ask("PUT", "/a/snapshots/one", {})).toEqual([400, "invalid_request"]);
    expect(await ask("PUT", "/a/snapshots/never", { pinned: true })).toEqual([404, "snapshot_not_found"]);
    for (const wrong of [{ by: "" }, { by: "x".repeat(257) }, { origin: "mars" }, { pinned: 1 }])
      expect(await ask("POST", "/a/snapshot", wrong)).toEqual([400, "invalid_request"]);
  });

  it("becomes a module by a job", async () => {
    await ask("POST", "", { id: "a" });
    const request = { snapshot: "one", module: "200-x" };
    expect(await ask("POST", "/a/promote", request)).toMatchObject([202, { kind: "promote", module: "200-x" }]);
    expect(jobs.requests).toEqual([{ kind: "promote", sandbox: "a", snapshot: "one", name: "200-x", replace: false }]);
    for (const wrong of [{ module: "x" }, { snapshot: "a/b", module: "x" }, { ...request, force: true }])
      expect(await ask("POST", "/a/promote", wrong)).toEqual([400, "invalid_request"]);
    expect(await ask("POST", "/..%2f/promote", request)).toEqual([404, "sandbox_not_found"]);
  });
});
