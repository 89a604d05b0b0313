import { describe, expect, it } from "vitest";

import { FakeReply, runFake, type FakeRoutes } from "../testing/fake-context.js";

const info = {
  allow_net: ["example.org", "1.2.3.4:22"],
  deny_net: ["bad.example.org"],
  net_limits: { down_kbit: 100, up_kbit: 200, connections_per_s: 3 },
  address: "10.200.0.2",
  address6: null,
  gateway: "10.200.0.1",
  sent_bytes: 2048,
  sent_packets: 5,
  received_bytes: 1024 ** 2,
  received_packets: 6,
  connections_open: 1,
  connections_refused: 2,
  dns_allowed: 7,
  dns_refused: 8,
  dns_limited: 9,
};
const path = "/v1/sandboxes/box/network";

/** A sandbox of that policy; a change is answered with what it is then. */
function sandbox(policy: Partial<typeof info> | { allow_net: null }): FakeRoutes {
  const now = { ...info, ...policy };
  return {
    [`GET ${path}`]: now,
    [`PUT ${path}`]: ({ body }: { body: string }) => ({ ...now, ...(JSON.parse(body) as object) }),
  };
}

/** What a change sends. */
async function change(args: readonly string[], routes: FakeRoutes = sandbox({})): Promise<unknown> {
  const { status, stderr, requests } = await runFake(["net", ...args], { routes });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(requests.map((line) => line.replace(/ \{.*/, ""))).toEqual([`GET ${path}`, `PUT ${path}`]);
  return JSON.parse(requests[1]?.slice(`PUT ${path} `.length) ?? "");
}

const { allow_net, deny_net, net_limits } = info;

describe("sq net show", () => {
  it("shows policy, limits and figures", async () => {
    const run = await runFake(["net", "show", "box"], { routes: sandbox({}) });
    expect(run).toMatchObject({ status: 0, stderr: "", requests: [`GET ${path}`] });
    expect(run.stdout).toBe(
      [
        "address        10.200.0.2",
        "gateway        10.200.0.1",
        "may reach      example.org, 1.2.3.4:22",
        "may not reach  bad.example.org",
        "limits         100 kbit/s down, 200 kbit/s up, 3 connections/s",
        "sent           2 KiB in 5 packets",
        "received       1 MiB in 6 packets",
        "connections    1 open, 2 refused",
        "names          7 allowed, 8 refused, 9 over the limit",
        "",
      ].join("\n"),
    );
  });

  it("leaves out what there is none of", async () => {
    const routes = sandbox({ allow_net: null, deny_net: [], net_limits: {} } as object);
    const { stdout } = await runFake(["net", "show", "box"], { routes });
    expect(stdout).toContain("may reach    everything public\n");
    expect(stdout).not.toMatch(/may not reach|limits/);
  });

  it("prints the API's JSON, and no control characters in either form", async () => {
    const routes = sandbox({ allow_net: ["a\u001b[2J\nb.example"] });
    const { stdout } = await runFake(["net", "show", "box", "--json"], { routes });
    expect(JSON.parse(stdout)).toEqual({ ...info, allow_net: ["a\u001b[2J\nb.example"] });
    expect(stdout).not.toContain("\u001b");
    const text = await runFake(["net", "show", "box"], { routes });
    expect(text.stdout).not.toContain("\u001b");
    expect(text.stdout.split("\n")).toHaveLength(10);
  });

  it("says so where there is no network", async () => {
    const routes = { [`GET ${path}`]: new FakeReply(409, { error: "there is none\u001b", code: "network_off" }) };
    expect(await runFake(["net", "show", "box"], { routes })).toMatchObject({
      status: 1,
      stdout: "",
      stderr: "sq: there is none\n",
    });
  });
});

describe("sq net allow", () => {
  it("adds to what is allowed, each once, and shows what is then", async () => {
    const body = await change(["allow", "box", "new.example", "example.org", "new.example"]);
    expect(body).toEqual({ allow_net: [...allow_net, "new.example"], deny_net, net_limits });
    const { stdout } = await runFake(["net", "allow", "box", "new.example"], { routes: sandbox({}) });
    expect(stdout).toContain("may reach      example.org, 1.2.3.4:22, new.example\n");
  });

  it("opens what was closed altogether", async () => {
    const body = await change(["allow", "box", "new.example"], sandbox({ allow_net: ["none"] }));
    expect(body).toMatchObject({ allow_net: ["new.example"] });
  });

  it.each([
    [["--only", "new.example", "new.example"], ["new.example"]],
    [["--only", "none"], ["none"]],
    [["--all"], null],
    [["--remove", "example.org"], ["1.2.3.4:22"]],
    [["--remove", "unknown.example"], allow_net],
    // not an empty list, which would be everything
    [["--remove", ...allow_net], ["none"]],
  ])("%j leaves %j", async (args, expected) => {
    expect(await change(["allow", "box", ...args])).toEqual({ allow_net: expected, deny_net, net_limits });
  });

  it.each([
    [["--only", "new.example"], ["new.example"]],
    [["--all"], null],
  ])("%j does so where everything public is allowed, too", async (args, expected) => {
    expect(await change(["allow", "box", ...args], sandbox({ allow_net: null }))).toMatchObject({
      allow_net: expected,
    });
  });

  it.each([
    [["--remove", "none"], ["none"]],
    [["--remove", "example.org"], ["none"]],
  ])("%j opens nothing where nothing is allowed", async (args, expected) => {
    expect(await change(["allow", "box", ...args], sandbox({ allow_net: ["none"] }))).toMatchObject({
      allow_net: expected,
    });
  });

  it.each([
    [[], /no entries are given; everything public is --all/],
    [["--only"], /no entries/],
    [["--remove"], /no entries/],
    [["--all", "example.org"], /--all goes without/],
    [["--all", "--only"], /--all goes without/],
    [["--all", "--remove"], /--all goes without/],
    [["--only", "--remove", "example.org"], /--only and --remove/],
    [["--unknown", "example.org"], /unknown option/],
  ])("refuses %j", async (args, message) => {
    const run = await runFake(["net", "allow", "box", ...args], { routes: sandbox({}) });
    expect(run).toMatchObject({ status: 2, stdout: "" });
    expect(run.stderr).toMatch(message);
    expect(run.requests.some((request) => request.startsWith("PUT"))).toBe(false);
  });

  it.each([
    [["example.org"], /everything public is allowed; use --only/],
    [["--remove", "example.org"], /everything public is allowed; use sq net deny/],
  ])("refuses %j where everything public is allowed, which it would close", async (args, message) => {
    const run = await runFake(["net", "allow", "box", ...args], { routes: sandbox({ allow_net: null }) });
    expect(run).toMatchObject({ status: 2, requests: [`GET ${path}`] });
    expect(run.stderr).toMatch(message);
  });

  it("passes refusals of the daemon on", async () => {
    const refusal = new FakeReply(400, { error: "no such entry", code: "invalid_request" });
    const routes = { ...sandbox({}), [`PUT ${path}`]: refusal };
    expect(await runFake(["net", "allow", "box", "exa mple"], { routes })).toMatchObject({
      status: 1,
      stderr: "sq: no such entry\n",
    });
  });
});

describe("sq net deny", () => {
  it.each([
    [
      ["new.example", "bad.example.org"],
      ["bad.example.org", "new.example"],
    ],
    [["--only", "new.example"], ["new.example"]],
    [["--remove", "bad.example.org"], []],
    [["--remove", "unknown.example"], ["bad.example.org"]],
  ])("%j leaves %j", async (args, expected) => {
    expect(await change(["deny", "box", ...args])).toEqual({ allow_net, deny_net: expected, net_limits });
  });

  it("keeps everything else, also where everything public is allowed", async () => {
    expect(await change(["deny", "box", "new.example"], sandbox({ allow_net: null }))).toMatchObject({
      allow_net: null,
    });
  });

  it.each([[[]], [["--only"]], [["--all", "example.org"]], [["--only", "--remove", "example.org"]]])(
    "refuses %j",
    async (args) => {
      const run = await runFake(["net", "deny", "box", ...args], { routes: sandbox({}) });
      expect(run).toMatchObject({ status: 2, stdout: "" });
      expect(run.requests.some((request) => request.startsWith("PUT"))).toBe(false);
    },
  );
});

describe("sq net log", () => {
  const common = { time: "2026-01-01T00:00:00.000Z", sandbox: "box" };
  const log = [
    {
      ...common,
      kind: "dns",
      name: "evil\u001b[2J\u0007.example",
      address: null,
      port: null,
      protocol: "udp",
      verdict: "refused",
      rule: "default: nothing else",
    },
    {
      ...common,
      kind: "connection",
      name: null,
      address: "1.2.3.4",
      port: 22,
      protocol: "tcp",
      verdict: "allowed",
      rule: "allow 1.2.3.4:22",
    },
  ];

  it("shows a table without control characters", async () => {
    const run = await runFake(["net", "log", "box"], { routes: { [`GET ${path}/log`]: log } });
    expect(run.requests).toEqual([`GET ${path}/log`]);
    expect(run.stdout.split("\n")).toEqual([
      "TIME                      BY          VERDICT  NAME             ADDRESS  PORT    RULE",
      "2026-01-01T00:00:00.000Z  dns         refused  evil[2J.example           udp     default: nothing else",
      "2026-01-01T00:00:00.000Z  connection  allowed                   1.2.3.4  22/tcp  allow 1.2.3.4:22",
      "",
    ]);
  });

  it.each(["-n", "--last"])("asks for so many with %s", async (option) => {
    const routes = { [`GET ${path}/log\\?limit=50`]: log };
    const { stdout, requests } = await runFake(["net", "log", "box", option, "50", "--json"], { routes });
    expect(requests).toEqual([`GET ${path}/log?limit=50`]);
    expect(JSON.parse(stdout)).toEqual(log);
    expect(stdout).not.toMatch(/\u001b|\u0007/);
  });

  it.each([["-n", "many"], ["-n", "-1"], ["-n", "1.5"], ["-n"], ["extra"]])("refuses %s %s", async (...args) => {
    expect(await runFake(["net", "log", "box", ...args])).toMatchObject({ status: 2, requests: [] });
  });
});
