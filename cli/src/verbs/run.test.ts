import { describe, expect, it } from "vitest";

import { Interruption } from "../exit-status.js";
import { FakeReply, runFake, type FakeRoutes } from "../testing/fake-context.js";

const box = "/v1/sandboxes/run-[0-9a-f]{16}";
const result = { seq: 1, exit_code: 3, stdout: "out", stderr: "" };
const created = new FakeReply(201, { id: "x" });
const routes: FakeRoutes = {
  "POST /v1/sandboxes": created,
  [`POST ${box}/exec`]: result,
  [`DELETE ${box}`]: undefined,
};

/** Requests with the id and the bodies taken out. */
const outline = (requests: string[]): string[] =>
  requests.map((line) => line.replace(/run-[0-9a-f]+/, "ID").replace(/ \{.*/, ""));

const whole = ["POST /v1/sandboxes", "POST /v1/sandboxes/ID/exec", "DELETE /v1/sandboxes/ID"];

describe("sq run", () => {
  it("creates, runs, destroys and exits as the command did", async () => {
    const args = ["run", "--layers", "a, b", "--cpu", "0.5", "-w", "/tmp", "--", "ls", "-l"];
    const { status, stdout, requests } = await runFake(args, { routes });
    expect({ status, stdout }).toEqual({ status: 3, stdout: "out" });
    expect(outline(requests)).toEqual(whole);
    expect(requests[0]).toMatch(/\{"layers":\["a","b"\],"cpu":0.5,"id":"run-[0-9a-f]{16}"\}$/);
    expect(requests[1]).toContain('{"cmd":["ls","-l"],"workdir":"/tmp"}');
  });

  it("destroys the sandbox when the command could not start", async () => {
    const refusal = new FakeReply(500, { error: "no", code: "exec_failed" });
    const { status, requests } = await runFake(["run", "x"], { routes: { ...routes, [`POST ${box}/exec`]: refusal } });
    expect(status).toBe(125);
    expect(outline(requests)).toEqual(whole);
  });

  it("destroys nothing when the creation was refused", async () => {
    const refusal = new FakeReply(503, { error: "full", code: "sandbox_limit" });
    const { status, stderr, requests } = await runFake(["run", "x"], { routes: { "POST /v1/sandboxes": refusal } });
    expect({ status, stderr }).toEqual({ status: 125, stderr: "sq: full\n" });
    expect(outline(requests)).toEqual(["POST /v1/sandboxes"]);
  });

  it.each(["POST /v1/sandboxes", `POST ${box}/exec`])("destroys the sandbox when interrupted in %s", async (route) => {
    const controller = new AbortController();
    const interrupt = (): never => {
      controller.abort(new Interruption("SIGINT"));
      throw controller.signal.reason;
    };
    const options = { routes: { ...routes, [route]: interrupt }, signal: controller.signal };
    const { status, requests } = await runFake(["run", "x"], options);
    expect(status).toBe(130);
    expect(outline(requests).at(-1)).toBe("DELETE /v1/sandboxes/ID");
  });

  it("keeps the command's status and says what is left when the sandbox could not be destroyed", async () => {
    const refusal = new FakeReply(500, { error: "busy", code: "kernel" });
    const { status, stderr } = await runFake(["run", "x"], { routes: { ...routes, [`DELETE ${box}`]: refusal } });
    expect(status).toBe(3);
    expect(stderr).toMatch(
      /^sq: busy\nsq: the sandbox may still exist; destroy it with: sq destroy run-[0-9a-f]{16}\n$/,
    );
  });

  it("exits with 2 without a command", async () => {
    expect(await runFake(["run"])).toMatchObject({ status: 2, requests: [] });
  });
});
