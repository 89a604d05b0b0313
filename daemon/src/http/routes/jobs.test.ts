import { createHash } from "node:crypto";
import { get } from "node:http";
import type { AddressInfo } from "node:net";
import { Client, type JobInfo } from "@squash/sdk";
import type { FastifyInstance } from "fastify";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeMachine } from "../../core/testing/fake-machine.js";
import { DiffAnswers } from "../../diff/diff-answers.js";
import { fakeSquashd } from "../../core/testing/fake-squashd.js";
import type { JobContext } from "../../core/jobs.js";
import { makeApp } from "../app.js";
import { FakeJobs } from "../testing/fake-jobs.js";
import { FakeModules } from "../testing/fake-modules.js";
import { FakeSecrets } from "../testing/fake-secrets.js";

let jobs: FakeJobs;
let app: FastifyInstance;
let context: JobContext | null;
let end: () => void;

beforeEach(async () => {
  jobs = new FakeJobs();
  context = null;
  jobs.run = (given) => {
    context = given;
    return new Promise((resolve, reject) => {
      end = resolve;
      given.signal.addEventListener("abort", () => reject(new Error("aborted")));
    });
  };
  const squashd = fakeSquashd(new FakeMachine());
  app = await makeApp({
    version: "1",
    sandboxes: squashd.sandboxes,
    time: squashd,
    diffs: new DiffAnswers(squashd.diffs),
    modules: new FakeModules(),
    jobs,
    health: { health: () => Promise.reject(new Error("not asked for")) },
    decisions: { read: () => Promise.resolve([]) },
    secrets: new FakeSecrets(),
    authorities: new FakeSecrets(),
    metrics: { contentType: "text/plain", render: () => Promise.resolve("") },
    webDir: import.meta.dirname,
    authToken: "",
    checkOrigin: false,
    reportBug: (error) => {
      throw error;
    },
  });
});
afterEach(() => app.close());

const start = (payload: object) => app.inject({ method: "POST", url: "/v1/jobs", payload });
const convert = { kind: "convert", name: "100-a", format: "erofs" } as const;

describe("the job routes", () => {
  it("begin, list, show and cancel", async () => {
    const started = await start(convert);
    expect([started.statusCode, started.json()]).toMatchObject([
      202,
      { id: "job-1", kind: "convert", state: "running" },
    ]);
    expect((await app.inject("/v1/jobs")).json()).toHaveLength(1);
    expect((await app.inject("/v1/jobs/job-1")).json()).toMatchObject({ module: "100-a", lines: [] });
    expect((await app.inject({ method: "DELETE", url: "/v1/jobs/job-1" })).statusCode).toBe(204);
    expect((await app.inject("/v1/jobs/job-1")).json()).toMatchObject({ state: "cancelled" });
    expect((await app.inject({ method: "DELETE", url: "/v1/jobs/job-1" })).statusCode).toBe(204);
    for (const url of ["/v1/jobs/job-1", "/v1/jobs/job-1/events"]) {
      const missing = await app.inject(url);
      expect([missing.statusCode, missing.json()]).toMatchObject([404, { code: "job_not_found" }]);
    }
  });

  it.each([
    [{ kind: "mkbase", base: "debian", release: "bookworm", packages: ["git"], formats: ["erofs"], replace: true }],
    [{ kind: "from-dir", name: "100-a", path: "/srv/a", requires: ["000-b"], conflicts: ["100-c"] }],
    [{ kind: "from-tar", name: "100-a", url: "https://example.org/a.tar", sha256: "0".repeat(64) }],
    [convert],
  ])("take %j", async (body) => {
    expect((await start(body)).statusCode).toBe(202);
    expect(jobs.requests).toEqual([body]);
  });

  it.each([
    [{}, /kind/],
    [{ kind: "mkfs" }, /kind|tag/],
    [{ ...convert, frmat: "erofs" }, /frmat is not a field/],
    [{ ...convert, format: "ext4" }, /format/],
    [{ kind: "convert", name: "100-a" }, /format is required/],
    [{ kind: "from-dir", name: "100-a" }, /path is required/],
    [{ kind: "from-tar", name: "a", url: "https://example.org", sha256: "0" }, /sha256/],
    [{ kind: "mkbase", base: "debian", replace: "true" }, /replace must be boolean/],
  ])("refuse %j", async (body, message) => {
    const answer = await start(body);
    expect([answer.statusCode, answer.json()]).toMatchObject([400, { code: "invalid_request", error: message }]);
    expect(jobs.requests).toEqual([]);
  });

  it("take a tar file that is sent", async () => {
    const payload = Buffer.from("tar");
    const sha256 = createHash("sha256").update(payload).digest("hex");
    const headers = { "content-type": "application/octet-stream" };
    const url = `/v1/jobs/from-tar?sha256=${sha256}&name=100-a`;
    expect((await app.inject({ method: "POST", url, payload, headers })).statusCode).toBe(202);
    expect(jobs.requests).toEqual([{ tar: "100-a", text: "tar" }]);
    const nameless = `/v1/jobs/from-tar?sha256=${sha256}`;
    expect((await app.inject({ method: "POST", url: nameless, payload, headers })).statusCode).toBe(400);
  });
});

describe("the events of a job", () => {
  async function client(): Promise<Client> {
    await app.listen({ host: "127.0.0.1", port: 0 });
    return new Client({ url: `http://127.0.0.1:${(app.server.address() as AddressInfo).port}` });
  }

  it("are its states, each whole, as the SDK reads them", async () => {
    const sdk = await client();
    const { id } = await sdk.startJob(convert);
    const seen: JobInfo[] = [];
    for await (const job of sdk.watchJob(id)) {
      seen.push(job);
      if (seen.length === 1) for (let line = 0; line < 1_000; line++) context?.progress(`line ${line}`, line / 1_000);
      if (job.step === "line 999") end();
    }
    // what comes within a moment comes as one
    expect(seen.length).toBeLessThan(20);
    expect(seen[0]).toMatchObject({ state: "running", step: "" });
    expect(seen.at(-1)).toMatchObject({ state: "done", step: "line 999", fraction: 1 });
  });

  it("are one for a job that is over", async () => {
    const sdk = await client();
    const { id } = await sdk.startJob(convert);
    end();
    await expect.poll(() => jobs.get(id).state).toBe("done");
    const seen: string[] = [];
    for await (const { state } of sdk.watchJob(id)) seen.push(state);
    expect(seen).toEqual(["done"]);
  });

  it("end for who goes away, and nothing is kept for him", async () => {
    const sdk = await client();
    const { id } = await sdk.startJob(convert);
    const listeners = new Set<unknown>();
    const { watch } = jobs;
    jobs.watch = (job, listener) => {
      const forget = watch.call(jobs, job, listener);
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
        forget();
      };
    };
    const { port } = app.server.address() as AddressInfo;
    const asked = get(`http://127.0.0.1:${port}/v1/jobs/${id}/events`, (response) => response.resume());
    asked.on("error", () => undefined);
    await expect.poll(() => listeners.size).toBe(1);
    asked.destroy();
    await expect.poll(() => listeners.size).toBe(0);
    const abort = new AbortController();
    const watching = sdk.watchJob(id, { signal: abort.signal });
    await watching.next();
    abort.abort(new Error("enough"));
    await expect(watching.next()).rejects.toThrow("enough");
  });
});
