import { describe, expect, it } from "vitest";

import { FakeReply, runFake } from "../testing/fake-context.js";

const path = "/v1/sandboxes/box";
const common = {
  created: "2026-01-01T00:00:00.000Z",
  size: 2048,
  total_size: 2048,
  layers: ["000-base"],
  depth: 1,
  active: false,
  pinned: false,
  by: "ann",
  origin: "api",
};
const history = [
  { ...common, label: "one", parent: null, pinned: true },
  { ...common, label: "two", parent: "one", active: true, total_size: 4096, origin: "cli" },
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
      requests: [`POST ${path}/snapshot {"label":"clean","origin":"cli"}`],
    });
    expect((await runFake(["snapshot", "box"], { routes })).requests).toEqual([
      `POST ${path}/snapshot {"origin":"cli"}`,
    ]);
    const more = await runFake(["snapshot", "box", "--by", "bob", "--pin"], { routes });
    expect(more.requests).toEqual([`POST ${path}/snapshot {"by":"bob","pinned":true,"origin":"cli"}`]);
  });

  it("forgets one, and needs its label for that", async () => {
    const run = await runFake(["snapshot", "box", "a.b", "--delete"], {
      routes: { [`DELETE ${path}/snapshots/a.b`]: undefined },
    });
    expect(run).toMatchObject({ status: 0, stdout: "" });
    expect(await runFake(["snapshot", "box", "--delete"])).toMatchObject({ status: 2, requests: [] });
  });
});

describe("sq snapshot --pin", () => {
  const routes = {
    [`GET ${path}/history`]: history,
    [`PUT ${path}/snapshots/two`]: { ...common, label: "two" },
    [`POST ${path}/snapshot`]: { snapshot: "new", size: 1, paused_ms: 1, removed: [] },
  };

  it("pins one that there is, takes one that there is not, and lets go again", async () => {
    const there = await runFake(["snapshot", "box", "two", "--pin"], { routes });
    expect(there).toMatchObject({ status: 0, stdout: "two\n" });
    expect(there.requests.at(-1)).toBe(`PUT ${path}/snapshots/two {"pinned":true}`);
    const other = await runFake(["snapshot", "box", "new", "--pin"], { routes });
    expect(other.requests.at(-1)).toBe(`POST ${path}/snapshot {"label":"new","pinned":true,"origin":"cli"}`);
    const free = await runFake(["snapshot", "box", "two", "--unpin"], { routes });
    expect(free.requests).toEqual([`PUT ${path}/snapshots/two {"pinned":false}`]);
    expect(await runFake(["snapshot", "box", "--unpin"])).toMatchObject({ status: 2, requests: [] });
    expect(await runFake(["snapshot", "box", "two", "--pin", "--delete"])).toMatchObject({ status: 2, requests: [] });
  });
});

describe("sq history and sq tree", () => {
  const routes = { [`GET ${path}/history`]: history };

  it("lists snapshots with what came before each", async () => {
    const { stdout } = await runFake(["history", "box"], { routes });
    expect(stdout.split("\n").slice(0, 3)).toEqual([
      "LABEL  AFTER  TAKEN                      SIZE  TOTAL  BY",
      "one           2026-01-01T00:00:00.000Z  2 KiB  2 KiB  ann  pinned",
      "two    one    2026-01-01T00:00:00.000Z  2 KiB  4 KiB  ann  restored",
    ]);
  });

  it("draws them as a tree", async () => {
    const { stdout } = await runFake(["tree", "box"], { routes });
    expect(stdout.replaceAll(/ {2}2026\S+/g, "")).toBe(
      `one  2 KiB  by ann  pinned
├─ two  2 KiB of 4 KiB  by ann (sq)  restored
└─ three  2 KiB  by ann
   └─ four  2 KiB  by ann
`,
    );
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
    const routes = { "POST /v1/gc": { images: ["a"], files: ["b", "c"], bytes: 4096 } };
    expect((await runFake(["gc"], { routes })).stdout).toBe("1 image, 2 files, 4 KiB\n");
    expect((await runFake(["gc", "-n"], { routes })).stdout).toBe("1 image, 2 files, 4 KiB would go\n");
  });
});
