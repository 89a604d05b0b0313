import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { FakeReply, runFake } from "../testing/fake-context.js";

const home = mkdtempSync(join(tmpdir(), "sq-module-"));
const file = join(home, "100-tools.squashfs");
writeFileSync(file, "image");
afterAll(() => rmSync(home, { recursive: true }));

const sha256 = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d";
const info = {
  name: "100-tools",
  size: 2048,
  format: "erofs",
  formats: ["squashfs", "erofs"],
  location: "local",
  sha256,
  created: "2026-01-01T00:00:00Z",
  source: "upload",
  requires: ["000-base"],
  conflicts: [],
  defaults: null,
  used_by: ["box"],
  problem: null,
};

describe("sq module", () => {
  it("shows a module, and what is wrong with it", async () => {
    const routes = { "GET /v1/modules/100-tools": { ...info, problem: "it is another file" } };
    const { stdout, status } = await runFake(["module", "show", "100-tools"], { routes });
    expect(status).toBe(0);
    expect(stdout).toMatch(/format +erofs, of squashfs, erofs\n/);
    expect(stdout).toMatch(/requires +000-base\nused by +box\nproblem +it is another file\n$/);
  });

  it("shows how a module's programs are meant to be started, without what could change the terminal", async () => {
    const defaults = { env: { A: "1", B: "\u001b[2J" }, workdir: "/srv", user: "", entrypoint: ["sh", "-c"], cmd: [] };
    const routes = { "GET /v1/modules/100-tools": { ...info, defaults } };
    const { stdout } = await runFake(["module", "show", "100-tools"], { routes });
    expect(stdout).toMatch(/\nenv +A=1\nenv +B=.*\nworkdir +\/srv\nentrypoint +\["sh","-c"\]\nused by/);
    expect(stdout).not.toMatch(/user |cmd|\u001b/);
  });

  it("makes the other image, whichever way the format is said", async () => {
    const job = {
      id: "j1",
      kind: "convert",
      module: "100-tools",
      modules: ["100-tools"],
      state: "queued",
      step: "",
      fraction: null,
    };
    const routes = {
      "POST /v1/jobs": new FakeReply(202, job),
      "GET /v1/jobs/j1/events": new FakeReply(404, { error: "Cannot", code: "not_found" }),
      "GET /v1/jobs/j1": { ...job, state: "done", error: null },
    };
    for (const format of [["--to", "squashfs"], ["squashfs"]]) {
      const run = await runFake(["module", "convert", "100-tools", ...format], { routes });
      expect(run).toMatchObject({ status: 0, stdout: "100-tools\n" });
      expect(run.requests[0]).toBe('POST /v1/jobs {"kind":"convert","name":"100-tools","format":"squashfs"}');
    }
    for (const wrong of [["erofs", "--to", "squashfs"], ["--to", "tar"], []])
      expect(await runFake(["module", "convert", "100-tools", ...wrong])).toMatchObject({ status: 2, requests: [] });
  });

  it("sends an image with its digest, under its own name or another", async () => {
    const routes = { "PUT /v1/modules/.*": info };
    expect(await runFake(["module", "push", file], { routes })).toMatchObject({
      status: 0,
      stdout: "100-tools\n",
      stderr: "sending 5 B …\n",
      requests: [`PUT /v1/modules/100-tools?sha256=${sha256} image`],
    });
    const flags = ["--replace", "--requires", "a,b", "--conflicts", "c"];
    expect((await runFake(["module", "push", file, "other", ...flags], { routes })).requests).toEqual([
      `PUT /v1/modules/other?sha256=${sha256}&replace=true&requires=a%2Cb&conflicts=c image`,
    ]);
  });

  it("draws a bar on a terminal and takes it away", async () => {
    const routes = { "PUT /v1/modules/.*": info };
    const { stderr } = await runFake(["module", "push", file], { routes, isTerminal: true });
    expect(stderr).toBe(`\r\u001b[2K[${"#".repeat(24)}] 100 % sending 5 B\r\u001b[2K`);
  });

  it("refuses what is no file as a misuse", async () => {
    for (const path of [home, join(home, "absent")])
      expect(await runFake(["module", "push", path])).toMatchObject({ status: 2, requests: [] });
  });

  it("removes some, and goes on after one that is in use", async () => {
    const routes = {
      "DELETE /v1/modules/a": new FakeReply(409, { error: "it is in use by box", code: "module_in_use" }),
      "DELETE /v1/modules/b": undefined,
    };
    expect(await runFake(["module", "rm", "a", "b"], { routes })).toMatchObject({
      status: 1,
      stdout: "b\n",
      stderr: "sq: it is in use by box\n",
    });
  });

  it("trusts one", async () => {
    const { requests, stdout } = await runFake(["module", "trust", "100-tools", "--json"], {
      routes: { "POST /v1/modules/100-tools/trust": info },
    });
    expect(requests).toEqual(["POST /v1/modules/100-tools/trust"]);
    expect(JSON.parse(stdout)).toEqual(info);
  });
});
