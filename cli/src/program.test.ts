import { describe, expect, it } from "vitest";

import { FakeReply, runFake } from "./testing/fake-context.js";

const info = {
  id: "box",
  state: "ready",
  reason: null,
  owner: "eve\u001b[2J",
  task: "",
  layers: ["b", "a"],
  created: "2026-01-01T00:00:00Z",
  last_active: "2026-01-01T00:05:00Z",
  exec_count: 2,
  running: 0,
  upper_bytes: 2048,
  upper_limit_bytes: 1024 ** 2,
  snapshots: [],
  retention: { keep_last: 3, keep_for_s: 3600 },
  active_snapshot: null,
  cpu: 2,
  memory_mb: 1024,
  pids: 64,
  max_lifetime_s: 0,
  secrets_granted: [],
  secrets_trusted: false,
  allow_net: null,
  deny_net: [],
  address: "10.200.0.2",
  address6: null,
  oom_kills: 0,
  restarts: 0,
  cgroup: null,
  pid: 7,
};

describe("sq", () => {
  it("prints its help and its version", async () => {
    const help = await runFake(["--help"]);
    expect(help).toMatchObject({ status: 0, stderr: "" });
    expect(help.stdout).toContain("SQUASH_AUTH_TOKEN");
    expect(await runFake(["--version"])).toMatchObject({ status: 0, stdout: "0.1.0\n" });
  });

  it.each([
    [[]],
    [["frobnicate"]],
    [["list", "extra"]],
    [["list", "--no"]],
    [["info"]],
    [["destroy"]],
    [["mkbase"]],
    [["mkmod"]],
    [["net"]],
    [["net", "show"]],
    [["net", "frobnicate", "box"]],
  ])("exits with 2 for %j", async (args) => {
    expect(await runFake(args)).toMatchObject({ status: 2, stdout: "", requests: [], squashd: [] });
  });

  it("exits with 1 and says what to do when the token is refused", async () => {
    const routes = { "GET /v1/modules": new FakeReply(401, { error: "unauthorized", code: "unauthorized" }) };
    const { status, stderr } = await runFake(["modules"], { routes });
    expect(status).toBe(1);
    expect(stderr).toBe("sq: unauthorized\nsq: the variable SQUASH_AUTH_TOKEN holds the daemon's token\n");
  });

  it("prints errors as JSON with --json", async () => {
    const error = { error: "stuck", code: "create_failed", details: { stage: "overlay" } };
    const { status, stderr } = await runFake(["create", "box", "--json"], {
      routes: { "POST /v1/sandboxes": new FakeReply(500, error) },
    });
    expect(status).toBe(1);
    expect(JSON.parse(stderr)).toEqual(error);
  });
});

describe("sq create", () => {
  const routes = { "POST /v1/sandboxes": new FakeReply(201, info) };

  it("sends only what is given and prints the id", async () => {
    const { stdout, requests } = await runFake(["create", "box"], { routes });
    expect(stdout).toBe("box\n");
    expect(requests).toEqual(['POST /v1/sandboxes {"id":"box"}']);
  });

  it("sends every option", async () => {
    const limits = ["--cpu", "1.5", "--memory-mb", "64", "--pids", "9", "--max-lifetime", "60"];
    const words = [
      "--layers",
      "a,b",
      "--owner",
      "o",
      "--task",
      "t",
      "--allow-net",
      "a.example, 1.2.3.4:22",
      "--nested-userns",
    ];
    const denied = ["--deny-net", "b.example,,c.example"];
    const rates = ["--net-down", "1000", "--net-up", "64", "--net-connections", "5"];
    const { requests } = await runFake(["create", "box", ...words, ...denied, ...rates, ...limits], { routes });
    expect(JSON.parse(requests[0]?.slice("POST /v1/sandboxes ".length) ?? "")).toEqual({
      id: "box",
      layers: ["a", "b"],
      owner: "o",
      task: "t",
      cpu: 1.5,
      memory_mb: 64,
      pids: 9,
      max_lifetime_s: 60,
      allow_net: ["a.example", "1.2.3.4:22"],
      deny_net: ["b.example", "c.example"],
      net_limits: { down_kbit: 1000, up_kbit: 64, connections_per_s: 5 },
      nested_userns: true,
    });
  });

  it("closes the network with none", async () => {
    const { requests } = await runFake(["create", "box", "--allow-net", "none"], { routes });
    expect(requests).toEqual(['POST /v1/sandboxes {"allow_net":["none"],"id":"box"}']);
  });

  it("accepts owner, layers and task behind the id", async () => {
    const { requests } = await runFake(["create", "box", "o", "a, b", "t"], { routes });
    expect(requests).toEqual(['POST /v1/sandboxes {"layers":["a","b"],"owner":"o","task":"t","id":"box"}']);
  });

  it.each([
    ["box", "o", "--owner", "p"],
    ["box", "--cpu", "many"],
    ["box", "--pids", "-1"],
    ["box", "--memory-mb", "1.5"],
  ])("exits with 2 for %s %s %s %s", async (...args) => {
    expect(await runFake(["create", ...args], { routes })).toMatchObject({ status: 2, requests: [] });
  });

  it("prints the API's JSON", async () => {
    const { stdout } = await runFake(["create", "box", "--json"], { routes });
    expect(JSON.parse(stdout)).toEqual(info);
    expect(stdout).not.toContain("\u001b");
  });
});

describe("sq list, info, health, modules, metrics", () => {
  it("list shows a table without control characters", async () => {
    const { stdout } = await runFake(["ls"], { routes: { "GET /v1/sandboxes": [info] } });
    expect(stdout).toBe(
      [
        "ID   STATE  OWNER   LAYERS  CPU    MEMORY  WRITTEN  RUNNING  AGE",
        "box  ready  eve[2J  b,a       2  1024 MiB    2 KiB        0  10m",
        "",
      ].join("\n"),
    );
  });

  it("info leaves out what does not apply", async () => {
    const { stdout } = await runFake(["info", "box"], { routes: { "GET /v1/sandboxes/box": info } });
    expect(stdout).toContain("state        ready\n");
    expect(stdout).toContain("written      2 KiB of 1 MiB\n");
    expect(stdout).toContain("retention    the newest 3, and those of the last 1h stay\n");
    expect(stdout).not.toMatch(/reason|task|cgroup/);
  });

  it("health says when there is no base", async () => {
    const health = {
      status: "ok",
      version: "1",
      uptime_s: 61,
      sandboxes: 1,
      modules: 0,
      base_ready: false,
      secrets: { count: 0, usable: true },
    };
    const routes = { "GET /health": { ...health, pool: { ready: 1, size: 4 } } };
    const { stdout } = await runFake(["health"], { routes });
    expect(stdout).toContain("modules    0, no base; make one with sq mkbase\n");
    expect(stdout).toContain("pool       1 of 4 cells ready\n");
  });

  it("modules shows no size for remote ones", async () => {
    const common = { used_by: ["box"], source: "mkbase debian", problem: null };
    const modules = [
      { name: "000-a", size: 1024, formats: ["squashfs", "erofs"], location: "local", ...common },
      { name: "100-b", size: 0, formats: ["erofs"], location: "remote", ...common, problem: "it is damaged" },
    ];
    const { stdout } = await runFake(["modules"], { routes: { "GET /v1/modules": modules } });
    expect(stdout.split("\n").slice(1)).toEqual([
      "000-a  1 KiB  squashfs,erofs  local        1  mkbase debian",
      "100-b         erofs           remote       1  cannot be used; see sq module show",
      "",
    ]);
  });

  it("metrics prints the daemon's text", async () => {
    const { stdout } = await runFake(["metrics"], { routes: { "GET /metrics": "up 1\nx\u001b 2\n" } });
    expect(stdout).toBe("up 1\nx 2\n");
  });
});

describe("sq logs", () => {
  const result = { started: "2026-01-01T00:00:00Z", duration_ms: 2.4, timed_out: false, stderr: "" };
  const routes = {
    "GET /v1/sandboxes/box/logs": [
      { ...result, seq: 1, cmd: "echo a", exit_code: 0, stdout: "a\n" },
      { ...result, seq: 2, cmd: ["echo", "it's"], exit_code: 1, stdout: "b\u001b[2J" },
    ],
  };

  it("shows each command and its output without control characters", async () => {
    const { stdout } = await runFake(["logs", "box"], { routes });
    expect(stdout).toBe(
      [
        "#1 2026-01-01T00:00:00Z exit 0 2 ms  echo a",
        "a",
        "#2 2026-01-01T00:00:00Z exit 1 2 ms  echo 'it'\\''s'",
        "b[2J",
        "",
      ].join("\n"),
    );
  });

  it.each([
    ["0", []],
    ["1", [2]],
    ["9", [1, 2]],
  ])("-n %s shows %j", async (count, expected) => {
    const { stdout } = await runFake(["logs", "box", "-n", count, "--json"], { routes });
    expect((JSON.parse(stdout) as { seq: number }[]).map(({ seq }) => seq)).toEqual(expected);
  });
});

describe("sq destroy", () => {
  it("goes on after a refusal, and exits with 1", async () => {
    const missing = new FakeReply(404, { error: "not found: b", code: "sandbox_not_found" });
    const routes = { "DELETE /v1/sandboxes/b": missing, "DELETE /v1/sandboxes/.": undefined };
    expect(await runFake(["rm", "a", "b", "c"], { routes })).toMatchObject({
      status: 1,
      stdout: "a\nc\n",
      stderr: "sq: not found: b\n",
    });
  });
});

describe("sq mkbase, doctor", () => {
  it("mkbase passes its arguments on, and the exit status back", async () => {
    const args = ["debian", "--suite", "trixie", "--json", "--help"];
    const run = await runFake(["mkbase", ...args], { daemonStatus: 4 });
    expect(run).toMatchObject({ status: 4, squashd: [["mkbase", ...args]] });
  });

  const checks = [
    { name: "overlayfs", ok: true, required: true, detail: "6.12" },
    { name: "erofs", ok: false, required: false, detail: "not\u001b there" },
  ];

  it("doctor shows a table and exits with 0 when only optional checks fail", async () => {
    const run = await runFake(["doctor"], { output: JSON.stringify(checks) });
    expect(run).toMatchObject({ status: 0, squashd: [["doctor", "--json"]] });
    expect(run.stdout.split("\n").map((line) => line.trim())).toEqual([
      "CHECK      FOUND",
      "✓  overlayfs  6.12",
      "✗  erofs      not there (optional)",
      "",
    ]);
  });

  it("doctor exits with 1 when a required check fails", async () => {
    const output = JSON.stringify([{ ...checks[1], required: true }]);
    expect(await runFake(["doctor", "--json"], { output })).toMatchObject({ status: 1 });
  });

  it.each(["", "{}", "[1]"])("doctor exits with 1 when squashd prints %j", async (output) => {
    const { status, stderr } = await runFake(["doctor"], { output });
    expect(status).toBe(1);
    expect(stderr).toContain("Cannot read what squashd doctor found");
  });
});
