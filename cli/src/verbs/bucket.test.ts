import { describe, expect, it } from "vitest";

import { FakeReply, runFake } from "../testing/fake-context.js";

const job = {
  id: "j1",
  kind: "push",
  module: "all",
  modules: [],
  state: "queued",
  step: "",
  fraction: null,
  error: null,
};

/** Routes of a job that ends so, or as it should. */
function jobRoutes(end: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    "POST /v1/jobs": new FakeReply(202, job),
    "GET /v1/jobs/j1/events": new FakeReply(404, { error: "Cannot", code: "not_found" }),
    "GET /v1/jobs/j1": { ...job, state: "done", step: "3 sent, 0 fetched, 0 left", ...end },
  };
}

describe("sq push, pull and sync", () => {
  it.each([
    [["push"], { kind: "push" }],
    [["push", "module", "100-x", "--replace"], { kind: "push", module: "100-x", replace: true }],
    [["push", "snapshots", "box"], { kind: "push", sandbox: "box" }],
    [["pull", "snapshots", "box", "clean"], { kind: "pull", sandbox: "box", label: "clean" }],
    [["sync"], { kind: "sync" }],
    [["sync", "box"], { kind: "sync", sandbox: "box" }],
    [["s3", "verify", "--deep"], { kind: "s3-verify", deep: true }],
    [["s3", "gc", "-n", "--grace", "60"], { kind: "s3-gc", dry_run: true, grace_s: 60 }],
  ])("%s begin a job and say how it ended", async (args, request) => {
    const run = await runFake(args, { routes: jobRoutes() });
    expect(run.requests[0]).toBe(`POST /v1/jobs ${JSON.stringify(request)}`);
    expect(run).toMatchObject({ status: 0, stdout: "3 sent, 0 fetched, 0 left\n" });
  });

  it("fail as their job does", async () => {
    const run = await runFake(["push"], { routes: jobRoutes({ state: "failed", error: "Cannot reach it" }) });
    expect(run).toMatchObject({ status: 1, stdout: "" });
    expect(run.stderr).toContain("sq: Cannot reach it");
  });

  it.each([[["push", "module"]], [["push", "box"]], [["pull", "modules", "x"]], [["s3", "rm", "snapshot", "box"]]])(
    "%s is no use of it",
    async (args) => {
      expect(await runFake(args)).toMatchObject({ status: 2, requests: [] });
    },
  );
});

describe("sq s3", () => {
  it("says which bucket it is, or that there is none", async () => {
    const off = { bucket: null, endpoint: null, prefix: "", encrypted: false, queued: 0, last_sync: null };
    const none = await runFake(["s3"], { routes: { "GET /v1/s3": { ...off, sync_error: null } } });
    expect(none.stdout).toContain("SQUASH_S3_BUCKET");
    const status = { ...off, bucket: "team", endpoint: "http://s3", queued: 2, sync_error: "Cannot reach it" };
    const run = await runFake(["s3"], { routes: { "GET /v1/s3": status } });
    for (const text of ["team", "http://s3", "none yet", "Cannot reach it"]) expect(run.stdout).toContain(text);
  });

  it("lists modules, snapshots and what waits", async () => {
    const routes = {
      "GET /v1/s3/modules": [
        {
          name: "100-x",
          format: "squashfs",
          size: 4096,
          sha256: "ab".repeat(32),
          here: "no",
          older: false,
          problem: null,
        },
        {
          name: "200-y",
          format: null,
          size: 0,
          sha256: null,
          here: "no",
          older: false,
          problem: "Cannot use it: damaged",
        },
      ],
      "GET /v1/s3/snapshots\\?id=box": [
        { id: "box", label: "bad", created: null, size: 0, layers: [], problem: "Cannot use it: it is damaged" },
        { id: "box", label: "clean", created: "2026-01-01T00:00:00Z", size: 4096, layers: ["000-base"], problem: null },
      ],
      "GET /v1/s3/queue": [
        {
          kind: "snapshot",
          subject: "box@clean",
          added: "2026-01-01T00:00:00Z",
          attempts: 2,
          next: null,
          error: "Cannot reach it",
          code: "s3_unreachable",
        },
      ],
    };
    const modules = (await runFake(["s3", "ls"], { routes })).stdout;
    expect(modules).toMatch(/100-x +squashfs +4 KiB +no +abababababab/);
    expect(modules).toMatch(/200-y +no +Cannot use it: damaged/);
    const listed = (await runFake(["s3", "ls", "box"], { routes })).stdout;
    expect(listed).toMatch(/box +clean +4 KiB/);
    expect(listed).toMatch(/box +bad +Cannot use it: it is damaged/);
    expect((await runFake(["s3", "queue"], { routes })).stdout).toMatch(/snapshot +box@clean .* 2 +Cannot reach it/);
  });

  it("takes things out", async () => {
    const routes = {
      "DELETE /v1/s3/modules/100-x": new FakeReply(204, ""),
      "DELETE /v1/s3/snapshots/box/clean": new FakeReply(204, ""),
      "DELETE /v1/s3/sandboxes/box": new FakeReply(204, ""),
    };
    expect(await runFake(["s3", "rm", "module", "100-x"], { routes })).toMatchObject({ status: 0 });
    expect(await runFake(["s3", "rm", "snapshot", "box", "clean"], { routes })).toMatchObject({ status: 0 });
    expect(await runFake(["s3", "rm", "sandbox", "box"], { routes })).toMatchObject({ status: 0 });
  });
});
