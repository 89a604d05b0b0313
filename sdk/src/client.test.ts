import { describe, expect, it } from "vitest";

import { Client, type Transport, type TransportReply, type TransportRequest } from "./client.js";

type Answer = Partial<TransportReply> | { json: unknown; status?: number };

/** Gives the prepared answers in turn and keeps the requests. */
class FakeTransport implements Transport {
  readonly address = "fake:";
  readonly requests: TransportRequest[] = [];
  readonly #answers: Answer[];

  constructor(answers: Answer[]) {
    this.#answers = answers;
  }

  send(request: TransportRequest): Promise<TransportReply> {
    this.requests.push(request);
    const answer = this.#answers.shift();
    if (answer === undefined) throw new Error(`unexpected ${request.method} ${request.path}`);
    if (!("json" in answer))
      return Promise.resolve({ status: 200, contentType: "application/json", text: "", ...answer });
    const { json, status = 200 } = answer;
    return Promise.resolve({ status, contentType: "application/json", text: JSON.stringify(json) });
  }

  close(): void {}
}

function prepare(answers: Answer[], token?: string): { client: Client; requests: TransportRequest[] } {
  const transport = new FakeTransport(answers);
  return { client: new Client({ transport, token }), requests: transport.requests };
}

const lines = (requests: TransportRequest[]): string[] =>
  requests.map(({ method, path, body = "" }) =>
    `${method} ${path} ${typeof body === "string" ? body : "bytes"}`.trimEnd(),
  );

describe("Client", () => {
  it("asks the documented routes", async () => {
    const { client, requests } = prepare([{ json: {} }, { json: [] }, { json: [] }, { json: {} }, { text: "up 1\n" }]);
    await client.health();
    await client.modules();
    await client.list();
    await client.get("a b/..");
    expect(await client.metrics()).toBe("up 1\n");
    expect(lines(requests)).toEqual([
      "GET /health",
      "GET /v1/modules",
      "GET /v1/sandboxes",
      "GET /v1/sandboxes/a%20b%2F..",
      "GET /metrics",
    ]);
  });

  it("creates, runs, looks and destroys", async () => {
    const { client, requests } = prepare([
      { json: { id: "a" }, status: 201 },
      { json: { exit_code: 3 } },
      { json: { id: "a" } },
      { json: [{ seq: 1 }] },
      { status: 204, contentType: "" },
    ]);
    const sandbox = await client.create({ id: "a", layers: ["l"], signal: new AbortController().signal });
    expect(sandbox.created).toEqual({ id: "a" });
    expect(await sandbox.exec(["ls", "-l"], { workdir: "/tmp", timeout: 5 })).toEqual({ exit_code: 3 });
    expect(await sandbox.info()).toEqual({ id: "a" });
    expect(await sandbox.logs()).toEqual([{ seq: 1 }]);
    await sandbox.destroy();
    expect(lines(requests)).toEqual([
      'POST /v1/sandboxes {"id":"a","layers":["l"]}',
      'POST /v1/sandboxes/a/exec {"cmd":["ls","-l"],"workdir":"/tmp","timeout":5}',
      "GET /v1/sandboxes/a",
      "GET /v1/sandboxes/a/logs",
      "DELETE /v1/sandboxes/a",
    ]);
  });

  it("shows and changes what a sandbox may reach", async () => {
    const network = { allow_net: ["example.org"], deny_net: ["1.2.3.4"], net_limits: { down_kbit: 64 } };
    const { client, requests } = prepare([
      { json: network },
      { json: network },
      { json: { allow_net: null } },
      { json: [{ rule: "r" }] },
      { json: [] },
    ]);
    const sandbox = client.sandbox("a b");
    expect(await sandbox.network()).toEqual(network);
    expect(await sandbox.setNetwork(network)).toEqual(network);
    await sandbox.setNetwork({ allow_net: null }, { deadlineMs: 5 });
    expect(await sandbox.networkLog()).toEqual([{ rule: "r" }]);
    await sandbox.networkLog({ limit: 7, deadlineMs: 6 });
    expect(lines(requests)).toEqual([
      "GET /v1/sandboxes/a%20b/network",
      'PUT /v1/sandboxes/a%20b/network {"allow_net":["example.org"],"deny_net":["1.2.3.4"],"net_limits":{"down_kbit":64}}',
      'PUT /v1/sandboxes/a%20b/network {"allow_net":null}',
      "GET /v1/sandboxes/a%20b/network/log",
      "GET /v1/sandboxes/a%20b/network/log?limit=7",
    ]);
    expect(requests.map(({ deadlineMs }) => deadlineMs)).toEqual([60_000, 60_000, 5, 60_000, 6]);
  });

  it("keeps the reason when there is no network", async () => {
    const refusal = { json: { error: "none", code: "network_off" }, status: 409 };
    await expect(prepare([refusal]).client.sandbox("a").network()).rejects.toMatchObject({ code: "network_off" });
    await expect(
      prepare([{ json: {} }])
        .client.sandbox("a")
        .networkLog(),
    ).rejects.toThrow(/is this the address/);
  });

  it("says what becomes of snapshots", async () => {
    const { client, requests } = prepare([
      { json: { keep_last: 3, keep_for_s: 0, removed: ["old"] } },
      { json: { label: "a.b", pinned: true } },
      { json: { label: "a.b", pinned: false } },
      { json: { id: "j1", kind: "promote" }, status: 202 },
    ]);
    const sandbox = client.sandbox("a");
    expect(await sandbox.setRetention({ keep_last: 3 })).toMatchObject({ removed: ["old"] });
    expect(await sandbox.pinSnapshot("a.b")).toMatchObject({ pinned: true });
    await sandbox.pinSnapshot("a.b", false);
    expect(await sandbox.promote({ snapshot: "a.b", module: "200-x" })).toMatchObject({ id: "j1" });
    expect(lines(requests)).toEqual([
      'PUT /v1/sandboxes/a/retention {"keep_last":3}',
      'PUT /v1/sandboxes/a/snapshots/a.b {"pinned":true}',
      'PUT /v1/sandboxes/a/snapshots/a.b {"pinned":false}',
      'POST /v1/sandboxes/a/promote {"snapshot":"a.b","module":"200-x"}',
    ]);
    expect(requests.every(({ deadlineMs }) => deadlineMs === 60_000)).toBe(true);
  });

  it("makes up an id where none is given", async () => {
    const { client, requests } = prepare([{ json: {}, status: 201 }]);
    const { id } = await client.create();
    expect(id).toMatch(/^box-[0-9a-f]{16}$/);
    expect(requests[0]?.body).toBe(JSON.stringify({ id }));
  });

  it("sends the token, and none where it is empty", async () => {
    const withToken = prepare([{ json: {} }], "secret");
    await withToken.client.health();
    expect(withToken.requests[0]?.headers["authorization"]).toBe("Bearer secret");
    const without = prepare([{ json: {} }], "");
    await without.client.health();
    expect(without.requests[0]?.headers).not.toHaveProperty("authorization");
  });

  it("refuses a token that cannot be a header, without repeating it", () => {
    expect(() => prepare([], "se\ncret")).toThrow(/printable ASCII/);
    expect(() => prepare([], "se\ncret")).not.toThrow(/cret/);
  });

  it("limits every call but exec", async () => {
    const { client, requests } = prepare([{ json: {} }, { json: {} }, { json: {} }, { json: {} }]);
    await client.health();
    await client.health({ deadlineMs: 5 });
    await client.sandbox("a").exec("ls");
    await client.sandbox("a").exec("ls", { deadlineMs: 7 });
    expect(requests.map((request) => request.deadlineMs)).toEqual([60_000, 5, undefined, 7]);
  });

  it("refuses an empty id, which would address the collection", () => {
    expect(() => prepare([]).client.sandbox("")).toThrow(expect.objectContaining({ code: "invalid_request" }));
  });
});

describe("errors", () => {
  it("keep the daemon's code, text and details", async () => {
    const json = { error: "no stage", code: "create_failed", details: { stage: "overlay" } };
    await expect(prepare([{ json, status: 500 }]).client.list()).rejects.toMatchObject({
      name: "SquashError",
      code: "create_failed",
      message: "no stage",
      details: { stage: "overlay" },
    });
  });

  it.each([
    [418, "invalid_request"],
    [500, "internal"],
  ])("with a code that is not known yet fall back by status %i to %s", async (status, code) => {
    const json = { error: "new", code: "quantum" };
    const call = prepare([{ json, status }]).client.list();
    await expect(call).rejects.toMatchObject({ code, message: "new", details: { code: "quantum" } });
  });

  it.each([
    ["an error page", { status: 502, contentType: "text/html", text: "<h1>Bad gateway</h1>" }],
    ["a redirection", { status: 301, contentType: "", text: "" }],
    ["a page in place of JSON", { contentType: "text/html", text: "[]" }],
    ["broken JSON", { text: "[" }],
    ["an object in place of a list", { text: "{}" }],
    ["an error without a code", { status: 500, text: '{"error":"x"}' }],
  ])("call %s the answer of a stranger", async (_, answer) => {
    const call = prepare([answer]).client.list();
    await expect(call).rejects.toMatchObject({ name: "ConnectionError", address: "fake:" });
    await expect(call).rejects.toThrow(/is this the address of squashd\?$/);
  });

  it("call a list in place of an object the answer of a stranger", async () => {
    await expect(prepare([{ json: [] }]).client.health()).rejects.toThrow(/is not an object/);
  });
});

describe("await using", () => {
  const missing = { json: { error: "none", code: "sandbox_not_found" }, status: 404 };

  it("destroys the sandbox when the block ends", async () => {
    const { client, requests } = prepare([{ status: 204, contentType: "" }]);
    {
      await using sandbox = client.sandbox("a");
      expect(sandbox.id).toBe("a");
    }
    expect(lines(requests)).toEqual(["DELETE /v1/sandboxes/a"]);
  });

  it("does not mind a sandbox that is gone, while destroy() does", async () => {
    const sandbox = prepare([missing, missing]).client.sandbox("a");
    await sandbox[Symbol.asyncDispose]();
    await expect(sandbox.destroy()).rejects.toMatchObject({ code: "sandbox_not_found" });
  });

  it("throws other refusals", async () => {
    const json = { error: "soon", code: "shutting_down" };
    const sandbox = prepare([{ json, status: 503 }]).client.sandbox("a");
    await expect(sandbox[Symbol.asyncDispose]()).rejects.toMatchObject({ code: "shutting_down" });
  });
});
