import { createHash } from "node:crypto";
import { connect, type AddressInfo } from "node:net";
import type { FastifyInstance } from "fastify";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeMachine } from "../../core/testing/fake-machine.js";
import { DiffAnswers } from "../../diff/diff-answers.js";
import { fakeSquashd } from "../../core/testing/fake-squashd.js";
import { makeApp } from "../app.js";
import { FakeJobs } from "../testing/fake-jobs.js";
import { FakeModules } from "../testing/fake-modules.js";
import { FakeSecrets } from "../testing/fake-secrets.js";
import { digestOf } from "../upload.js";

let modules: FakeModules;
let app: FastifyInstance;

beforeEach(async () => {
  modules = new FakeModules();
  const squashd = fakeSquashd(new FakeMachine());
  app = await makeApp({
    version: "1",
    sandboxes: squashd.sandboxes,
    time: squashd,
    diffs: new DiffAnswers(squashd.diffs),
    modules,
    jobs: new FakeJobs(),
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

const image = Buffer.from("image");
const hex = createHash("sha256").update(image).digest("hex");
const base64 = createHash("sha256").update(image).digest("base64");
const put = (url: string, headers: Record<string, string> = {}, payload = image) =>
  app.inject({ method: "PUT", url, payload, headers: { "content-type": "application/octet-stream", ...headers } });

describe("the module routes", () => {
  it("show and remove one, and answer 404 where there is none", async () => {
    expect((await app.inject("/v1/modules/000-base")).json()).toMatchObject({ name: "000-base", used_by: [] });
    expect((await app.inject({ method: "POST", url: "/v1/modules/000-base/trust" })).statusCode).toBe(200);
    expect((await app.inject({ method: "DELETE", url: "/v1/modules/000-base" })).statusCode).toBe(204);
    for (const method of ["GET", "DELETE"] as const) {
      const missing = await app.inject({ method, url: "/v1/modules/000-base" });
      expect([missing.statusCode, missing.json()]).toMatchObject([404, { code: "module_not_found" }]);
    }
    const create = await app.inject({ method: "POST", url: "/v1/sandboxes", payload: { id: "a", layers: "none" } });
    expect([create.statusCode, create.json()]).toMatchObject([400, { code: "module_not_found" }]);
  });

  it("take an image with either form of its digest, or both", async () => {
    const url = `/v1/modules/a?sha256=${hex.toUpperCase()}&replace=true&requires=x,%20y&conflicts=z`;
    expect((await put(url)).statusCode).toBe(201);
    expect((await put("/v1/modules/b", { "content-digest": `sha-512=:AA==:, sha-256=:${base64}:` })).statusCode).toBe(
      201,
    );
    expect((await put(`/v1/modules/c?sha256=${hex}`, { "content-digest": `sha-256=:${base64}:` })).statusCode).toBe(
      201,
    );
    expect(modules.uploads).toEqual([
      { text: "image", sha256: hex, replace: true, requires: ["x", "y"], conflicts: ["z"] },
      { text: "image", sha256: hex, replace: false },
      { text: "image", sha256: hex, replace: false },
    ]);
    // that there is nothing is something else than to say nothing
    expect((await put(`/v1/modules/d?sha256=${hex}&requires=&conflicts=`)).statusCode).toBe(201);
    expect(modules.uploads.at(-1)).toMatchObject({ requires: [], conflicts: [] });
  });

  it("take an image that is larger than the body of any other request may be", async () => {
    const large = Buffer.alloc(3_000_000, "x");
    expect((await put(`/v1/modules/a?sha256=${hex}`, {}, large)).statusCode).toBe(201);
    const payload = JSON.stringify({ id: "a", task: "x".repeat(1_100_000) });
    const headers = { "content-type": "application/json" };
    const refused = await app.inject({ method: "POST", url: "/v1/sandboxes", payload, headers });
    expect(refused.json()).toMatchObject({ code: "body_too_large" });
    const elsewhere = { method: "POST", url: "/v1/sandboxes", payload: large } as const;
    const bytes = await app.inject({ ...elsewhere, headers: { "content-type": "application/octet-stream" } });
    expect(bytes.json()).toMatchObject({ code: "unsupported_media_type" });
  });

  it.each([
    ["", {}, /needs \?sha256=HEX/],
    [`?sha256=${"0".repeat(63)}`, {}, /sha256/],
    [`?sha256=${hex}`, { "content-digest": `sha-256=:${Buffer.alloc(32).toString("base64")}:` }, /two that differ/],
    ["", { "content-digest": "sha-512=:AA==:" }, /no sha-256/],
    ["", { "content-digest": "sha-256=:AA==:" }, /no sha-256/],
    [`?sha256=${hex}&sha=1`, {}, /sha is not a field/],
    [`?sha256=${hex}&replace=yes`, {}, /replace/],
  ])("refuse an upload with %s %j", async (query, headers, message) => {
    const answer = await put(`/v1/modules/a${query}`, headers);
    expect([answer.statusCode, answer.json()]).toMatchObject([400, { code: "invalid_request", error: message }]);
    expect(modules.uploads).toEqual([]);
  });

  it("refuse an upload as JSON", async () => {
    const answer = await app.inject({ method: "PUT", url: `/v1/modules/a?sha256=${hex}`, payload: {} });
    expect([answer.statusCode, answer.json()]).toMatchObject([415, { code: "unsupported_media_type" }]);
  });

  it("tell the handler when the sender goes away in the middle", async () => {
    await app.listen({ host: "127.0.0.1", port: 0 });
    const ended = new Promise<unknown>((settle) => {
      modules.put = async (_, { body, signal }) => {
        try {
          for await (const chunk of body) expect(chunk.length).toBeGreaterThan(0);
          settle("came to its end");
        } catch {
          await new Promise((done) => setTimeout(done, 50));
          settle(signal.aborted);
        }
        throw new Error("gone");
      };
    });
    const socket = connect((app.server.address() as AddressInfo).port, "127.0.0.1");
    const head = `PUT /v1/modules/a?sha256=${hex} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n`;
    socket.write(`${head}Content-Length: 1000\r\n\r\nsome of it`);
    setTimeout(() => socket.destroy(), 100);
    expect(await ended).toBe(true);
  });
});

it("digestOf() reads what is sent in lower case or upper case", () => {
  expect(digestOf(undefined, hex.toUpperCase())).toBe(hex);
  expect(digestOf(`sha-256=:${base64}:`, undefined)).toBe(hex);
});
