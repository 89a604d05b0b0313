import { describe, expect, it } from "vitest";

import { FakeReply, runFake } from "../testing/fake-context.js";

const path = "/v1/sandboxes/box";

describe("sq retention", () => {
  const routes = { [`PUT ${path}/retention`]: { keep_last: 3, keep_for_s: 604_800, removed: ["old", "older"] } };

  it("says what stays, and what has gone", async () => {
    const run = await runFake(["retention", "box", "--keep-last", "3", "--keep-for", "7d"], { routes });
    expect(run.requests).toEqual([`PUT ${path}/retention {"keep_last":3,"keep_for_s":604800}`]);
    expect(run).toMatchObject({
      status: 0,
      stdout: "the newest 3, and those of the last 7d stay\nremoved old\nremoved older\n",
    });
  });

  it("leaves to the daemon what is not said, and knows times", async () => {
    const all = { [`PUT ${path}/retention`]: { keep_last: 0, keep_for_s: 0, removed: [] } };
    const run = await runFake(["retention", "box"], { routes: all });
    expect(run).toMatchObject({ stdout: "all stay\n", requests: [`PUT ${path}/retention {}`] });
    for (const [text, seconds] of Object.entries({ "90": 90, "90s": 90, "15m": 900, "12h": 43_200 })) {
      const { requests } = await runFake(["retention", "box", "--keep-for", text], { routes });
      expect(requests).toEqual([`PUT ${path}/retention {"keep_for_s":${seconds}}`]);
    }
    for (const text of ["1w", "-1", "1.5h", ""])
      expect(await runFake(["retention", "box", "--keep-for", text])).toMatchObject({ status: 2, requests: [] });
  });

  it("is part of a creation, too", async () => {
    const created = { "POST /v1/sandboxes": new FakeReply(201, { id: "box" }) };
    const run = await runFake(["create", "box", "--keep-last", "0", "--keep-for", "1h"], { routes: created });
    expect(run.requests).toEqual(['POST /v1/sandboxes {"retention":{"keep_last":0,"keep_for_s":3600},"id":"box"}']);
  });
});

describe("sq promote", () => {
  const job = {
    id: "j1",
    kind: "promote",
    module: "200-x",
    modules: ["200-x"],
    state: "queued",
    step: "",
    fraction: null,
    error: null,
  };

  it("follows the job, and prints the module", async () => {
    const done = { ...job, state: "done" };
    const routes = {
      [`POST ${path}/promote`]: new FakeReply(202, job),
      "GET /v1/jobs/j1/events": new FakeReply(404, { error: "Cannot", code: "not_found" }),
      "GET /v1/jobs/j1": done,
    };
    const run = await runFake(["promote", "box", "one", "200-x", "--replace"], { routes });
    expect(run.requests[0]).toBe(`POST ${path}/promote {"snapshot":"one","module":"200-x","replace":true}`);
    expect(run).toMatchObject({ status: 0, stdout: "200-x\n" });
  });

  it("prints the job's id where it is not to be followed, and why it is refused", async () => {
    const routes = { [`POST ${path}/promote`]: new FakeReply(202, job) };
    const run = await runFake(["promote", "box", "one", "200-x", "--detach"], { routes });
    expect(run).toMatchObject({
      stdout: "j1\n",
      requests: [`POST ${path}/promote {"snapshot":"one","module":"200-x"}`],
    });
    const both = await runFake(["promote", "box", "one", "200-x", "--detach", "--format", "both"], { routes });
    expect(both.requests).toEqual([
      `POST ${path}/promote {"snapshot":"one","module":"200-x","formats":["squashfs","erofs"]}`,
    ]);
    expect(await runFake(["promote", "box", "one", "200-x", "--format", "tar"])).toMatchObject({
      status: 2,
      requests: [],
    });
    const refused = { [`POST ${path}/promote`]: new FakeReply(409, { error: "Cannot: no", code: "module_exists" }) };
    expect(await runFake(["promote", "box", "one", "200-x"], { routes: refused })).toMatchObject({
      status: 1,
      stderr: "sq: Cannot: no\n",
    });
  });
});
