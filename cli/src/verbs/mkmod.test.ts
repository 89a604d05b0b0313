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
  modules: ["100-tools"],
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

  it("asks for modules of images, and prints the names of all", async () => {
    const routes = routesOf({ state: "done", modules: ["000-a-layer-1", "001-a-layer-2"] });
    const flags = ["--per-layer", "--name", "a", "--platform", "linux/arm64", "--insecure", "--replace"];
    const run = await runFake(["mkmod", "from-oci", "example.org/a:1", ...flags], { routes });
    expect(run.stdout).toBe("000-a-layer-1\n001-a-layer-2\n");
    const asked = { reference: "example.org/a:1", name: "a", per_layer: true, platform: "linux/arm64", insecure: true };
    expect(run.requests[0]).toBe(`POST /v1/jobs ${JSON.stringify({ kind: "from-oci", ...asked, replace: true })}`);
    const stored = await runFake(["mkmod", "from-oci", "--archive", "/srv/a.tar", "--format", "erofs"], { routes });
    expect(stored.requests[0]).toBe('POST /v1/jobs {"kind":"from-oci","archive":"/srv/a.tar","formats":["erofs"]}');
  });

  it.each([
    ["example.org/a:1", "example.org", { username: "me", password: "pass:word" }],
    ["team/a", "https://index.docker.io/v1/", { username: "me", password: "pass:word" }],
    ["docker.io/team/a", "docker.io", { username: "me", password: "pass:word" }],
    ["localhost/a", "localhost", { username: "me", password: "pass:word" }],
    ["example.org/a:1", "other.example.org", {}],
  ])("sends the password for the registry of %s alone", async (reference, host, wanted) => {
    const authfile = join(home, "config.json");
    const auth = Buffer.from("me:pass:word").toString("base64");
    writeFileSync(authfile, JSON.stringify({ auths: { [host]: { auth } } }));
    const routes = routesOf({ state: "done" });
    const run = await runFake(["mkmod", "from-oci", reference, "--authfile", authfile], { routes });
    expect(run.requests[0]).toBe(`POST /v1/jobs ${JSON.stringify({ kind: "from-oci", reference, ...wanted })}`);
  });

  it("shows nothing of a file of passwords that it cannot read", async () => {
    const authfile = join(home, "odd.json");
    writeFileSync(
      authfile,
      JSON.stringify({ auths: { "example.org": { auth: Buffer.from("hidden").toString("base64") } } }),
    );
    const run = await runFake(["mkmod", "from-oci", "example.org/a", "--authfile", authfile]);
    expect(run).toMatchObject({ status: 2, requests: [] });
    expect(run.stderr).toMatch(/what it has for "example.org" is no "auth"/);
    expect(run.stderr).not.toContain("hidden");
  });

  it("asks for modules of sandboxes and of presets", async () => {
    const routes = routesOf({ state: "done" });
    const box = await runFake(["mkmod", "from-sandbox", "box", "900-a", "--snapshot", "v1", "--all"], { routes });
    expect(box.requests[0]).toBe(
      'POST /v1/jobs {"kind":"from-sandbox","sandbox":"box","name":"900-a","snapshot":"v1","all":true}',
    );
    const flags = [
      "--base",
      "000-b",
      "--name",
      "200-x",
      "--allow-net",
      "a.example:80,10.0.0.1",
      "--conflicts",
      "200-y",
    ];
    const preset = await runFake(["mkmod", "preset", "packages", "--packages", "a,b", ...flags], { routes });
    const wanted = { name: "200-x", base: "000-b", packages: ["a", "b"], allow_net: ["a.example:80", "10.0.0.1"] };
    expect(preset.requests[0]).toBe(
      `POST /v1/jobs ${JSON.stringify({ kind: "preset", preset: "packages", ...wanted, conflicts: ["200-y"] })}`,
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
    [["from-oci"]],
    [["from-oci", "--layout", "/srv/a", "--authfile", join(home, "absent")]],
    [["from-oci", "a", "--authfile", join(home, "absent")]],
    [["from-oci", "a", "--authfile", tar]],
    [["from-sandbox", "box"]],
    [["preset"]],
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
