import { describe, expect, it } from "vitest";

import { FakeReply, runFake } from "../testing/fake-context.js";

const path = "/v1/sandboxes/box";
const common = { created: "2026-01-01T00:00:00.000Z", size: 2048, layers: ["000-base"], depth: 1, active: false };
const history = [
  { ...common, label: "one", parent: null },
  { ...common, label: "two", parent: "one", active: true },
  { ...common, label: "three", parent: "one" },
  { ...common, label: "four", parent: "three" },
];

describe("sq snapshot", () => {
  it("prints the label, given or not", async () => {
    const routes = { [`POST ${path}/snapshot`]: { snapshot: "clean", size: 1, paused_ms: 1 } };
    const given = await runFake(["snapshot", "box", "clean"], { routes });
    expect(given).toMatchObject({
      status: 0,
      stdout: "clean\n",
      requests: [`POST ${path}/snapshot {"label":"clean"}`],
    });
    expect((await runFake(["snapshot", "box"], { routes })).requests).toEqual([`POST ${path}/snapshot {}`]);
  });

  it("forgets one, and needs its label for that", async () => {
    const run = await runFake(["snapshot", "box", "a.b", "--delete"], {
      routes: { [`DELETE ${path}/snapshots/a.b`]: undefined },
    });
    expect(run).toMatchObject({ status: 0, stdout: "" });
    expect(await runFake(["snapshot", "box", "--delete"])).toMatchObject({ status: 2, requests: [] });
  });
});

describe("sq history and sq tree", () => {
  const routes = { [`GET ${path}/history`]: history };

  it("lists snapshots with what came before each", async () => {
    const { stdout } = await runFake(["history", "box"], { routes });
    expect(stdout.split("\n").slice(0, 3)).toEqual([
      "LABEL  AFTER  TAKEN                      SIZE",
      "one           2026-01-01T00:00:00.000Z  2 KiB",
      "two    one    2026-01-01T00:00:00.000Z  2 KiB",
    ]);
  });

  it("draws them as a tree", async () => {
    const { stdout } = await runFake(["tree", "box"], { routes });
    expect(stdout.replaceAll(/ {2}2026\S+ {2}2 KiB/g, "")).toBe("one\n├─ two  restored\n└─ three\n   └─ four\n");
  });
});

describe("sq restore, activate, deactivate and fork", () => {
  it("say what is to happen to what runs", async () => {
    const run = await runFake(["restore", "box", "one", "--running", "wait", "--timeout", "9"], {
      routes: { [`POST ${path}/restore`]: { layers: ["000-base"] } },
    });
    expect(run.requests).toEqual([`POST ${path}/restore {"label":"one","running":"wait","timeout":9}`]);
    expect(run).toMatchObject({ status: 0, stdout: "000-base\n" });
    expect((await runFake(["restore", "box", "one", "--running", "nap"])).status).toBe(2);
  });

  it("show the stack, topmost first", async () => {
    const answer = { layers: ["100-more", "000-base"] };
    const activated = await runFake(["activate", "box", "100-more"], { routes: { [`POST ${path}/activate`]: answer } });
    expect(activated.stdout).toBe("100-more\n000-base\n");
    const refused = new FakeReply(409, { error: "Cannot do that: no", code: "sandbox_busy" });
    const run = await runFake(["deactivate", "box", "100-more"], { routes: { [`POST ${path}/deactivate`]: refused } });
    expect(run).toMatchObject({ status: 1, stderr: "sq: Cannot do that: no\n" });
  });

  it("print the ids of forks", async () => {
    const routes = { [`POST ${path}/fork`]: new FakeReply(201, [{ id: "f1" }, { id: "f2" }]) };
    const run = await runFake(["fork", "box", "--count", "2", "--from", "one"], { routes });
    expect(run).toMatchObject({ stdout: "f1\nf2\n", requests: [`POST ${path}/fork {"count":2,"from":"one"}`] });
  });
});

describe("sq gc", () => {
  it("says what went, or would", async () => {
    const routes = { "POST /v1/gc": { images: ["a"], bytes: 4096 } };
    expect((await runFake(["gc"], { routes })).stdout).toBe("1 image, 4 KiB\n");
    expect((await runFake(["gc", "-n"], { routes })).stdout).toBe("1 image would go\n");
  });
});
