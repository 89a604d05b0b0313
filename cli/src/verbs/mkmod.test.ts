import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Interruption } from "../exit-status.js";
import { runFake, type FakeRoutes } from "../testing/fake-context.js";

const home = mkdtempSync(join(tmpdir(), "sq-mkmod-"));
const tar = join(home, "tools.tar");
writeFileSync(tar, "image");
afterAll(() => rmSync(home, { recursive: true }));

const sha256 = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d";
const job = {
  id: "5f2a",
  kind: "from-tar",
  module: "100-tools",
  state: "running",
  step: "packing it",
  fraction: 0.5,
  lines: ["packing it"],
  created: "2026-01-01T00:00:00Z",
  started: "2026-01-01T00:00:00Z",
  finished: null,
  error: null,
  code: null,
};

/** A daemon whose job takes these states, one each time it is asked. */
function routesOf(...states: object[]): FakeRoutes {
  const left = [...states];
  return {
    "POST /v1/jobs.*": job,
    "GET /v1/jobs/5f2a": () => ({ ...job, ...(left.length > 1 ? left.shift() : left[0]) }),
    "DELETE /v1/jobs/5f2a": undefined,
    "GET /v1/jobs": [job, { ...job, id: "77", state: "failed", fraction: null, error: "the disk is full" }],
  };
}

describe("sq mkmod", () => {
  it("sends a tar file, follows the job, and prints the module's name", async () => {
    const run = await runFake(["mkmod", "from-tar", tar, "100-tools", "--requires", "a,b"], {
      routes: routesOf({}, { state: "done", fraction: 1 }),
    });
    expect(run).toMatchObject({ status: 0, stdout: "100-tools\n", stderr: "sending 5 B …\npacking it …\n" });
    expect(run.requests).toEqual([
      `POST /v1/jobs/from-tar?sha256=${sha256}&requires=a%2Cb&name=100-tools image`,
      "GET /v1/jobs/5f2a",
      "GET /v1/jobs/5f2a",
    ]);
  });

  it("asks for a tar file on a server, and for a directory of the daemon's machine", async () => {
    const routes = routesOf({ state: "done" });
    const url = "https://example.org/a.tar.gz";
    const fetched = await runFake(["mkmod", "from-tar", url, "100-a", "--sha256", sha256, "--replace"], { routes });
    expect(fetched.requests[0]).toBe(
      `POST /v1/jobs ${JSON.stringify({ kind: "from-tar", url, sha256, name: "100-a", replace: true })}`,
    );
    const packed = await runFake(["mkmod", "from-dir", "/srv/a", "100-a", "--format", "erofs"], { routes });
    expect(packed.requests[0]).toBe(
      `POST /v1/jobs ${JSON.stringify({ kind: "from-dir", path: "/srv/a", name: "100-a", formats: ["erofs"] })}`,
    );
  });

  it("says why a job failed", async () => {
    const routes = routesOf({ state: "failed", error: "the tar file is\u001b[2J damaged" });
    expect(await runFake(["mkmod", "from-dir", "/srv/a", "100-a"], { routes })).toMatchObject({
      status: 1,
      stdout: "",
      stderr: expect.stringMatching(/sq: the tar file is\S* damaged\n$/) as string,
    });
  });

  it("draws a bar on a terminal", async () => {
    const run = await runFake(["mkmod", "from-dir", "/srv/a", "100-a"], {
      routes: routesOf({}, { state: "done" }),
      isTerminal: true,
    });
    expect(run.stderr).toBe(`\r\u001b[2K[${"#".repeat(12)}${"-".repeat(12)}] 50 % packing it\r\u001b[2K`);
  });

  it("cancels the job when it is interrupted", async () => {
    const stop = new AbortController();
    const routes = {
      ...routesOf({}),
      "GET /v1/jobs/5f2a": () => {
        stop.abort(new Interruption("SIGINT"));
        return job;
      },
    };
    const run = await runFake(["mkmod", "from-dir", "/srv/a", "100-a"], { routes, signal: stop.signal });
    expect(run.status).toBe(130);
    expect(run.requests.at(-1)).toBe("DELETE /v1/jobs/5f2a");
  });

  it("prints the job's id and goes when that is wished for", async () => {
    const run = await runFake(["mkmod", "from-dir", "/srv/a", "100-a", "--detach"], { routes: routesOf({}) });
    expect(run).toMatchObject({ status: 0, stdout: "5f2a\n", requests: [expect.stringContaining("POST")] });
  });

  it.each([
    [["from-tar", "https://example.org/a", "100-a"]],
    [["from-tar", tar, "100-a", "--sha256", sha256]],
    [["from-tar", join(home, "absent"), "100-a"]],
    [["from-dir", "/srv/a", "100-a", "--format", "ext4"]],
  ])("refuses %j as a misuse", async (args) => {
    expect(await runFake(["mkmod", ...args])).toMatchObject({ status: 2, requests: [] });
  });
});

describe("sq jobs", () => {
  it("lists, cancels and follows", async () => {
    const { stdout } = await runFake(["jobs"], { routes: routesOf({}) });
    expect(stdout.split("\n").slice(1)).toEqual([
      "5f2a  from-tar  100-tools  running  50 %  10m  packing it",
      "77    from-tar  100-tools  failed         10m  the disk is full",
      "",
    ]);
    expect(await runFake(["jobs", "cancel", "5f2a"], { routes: routesOf({}) })).toMatchObject({
      stdout: "5f2a\n",
      requests: ["DELETE /v1/jobs/5f2a"],
    });
    expect(await runFake(["jobs", "follow", "5f2a"], { routes: routesOf({ state: "done" }) })).toMatchObject({
      status: 0,
      stdout: "100-tools\n",
    });
  });

  it("convert makes another image", async () => {
    const run = await runFake(["module", "convert", "100-tools", "erofs"], { routes: routesOf({ state: "done" }) });
    expect(run.requests[0]).toBe('POST /v1/jobs {"kind":"convert","name":"100-tools","format":"erofs"}');
    expect((await runFake(["module", "convert", "100-tools", "ext4"])).status).toBe(2);
  });
});
