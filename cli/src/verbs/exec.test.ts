import { Readable } from "node:stream";
import { describe, expect, it } from "vitest";

import { Interruption } from "../exit-status.js";
import { FakeReply, runFake, type FakeOptions, type FakeRun } from "../testing/fake-context.js";

const result = { seq: 1, exit_code: 0, stdout: "", stderr: "" };

function exec(args: string[], answer: unknown = result, options: FakeOptions = {}): Promise<FakeRun> {
  return runFake(["exec", ...args], { routes: { "POST /v1/sandboxes/box/exec": answer }, ...options });
}

/** The body of the one request. */
async function bodyOf(args: string[], options: FakeOptions = {}): Promise<unknown> {
  const { requests, status, stderr } = await exec(args, result, options);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return JSON.parse(requests[0]?.replace(/^.*?exec /, "") ?? "");
}

describe("sq exec", () => {
  it("takes one word for a shell command and several for a program", async () => {
    expect(await bodyOf(["box", "ls -l | wc"])).toEqual({ cmd: "ls -l | wc" });
    expect(await bodyOf(["box", "ls", "-l", "a b"])).toEqual({ cmd: ["ls", "-l", "a b"] });
  });

  it("takes nothing behind the command's first word for an option of its own", async () => {
    expect(await bodyOf(["box", "ls", "-w", "--json", "--help", "--", "x"])).toEqual({
      cmd: ["ls", "-w", "--json", "--help", "--", "x"],
    });
    expect(await bodyOf(["box", "--", "-e", "--", "x"])).toEqual({ cmd: ["-e", "--", "x"] });
  });

  it.each([
    ["before the id", ["-w", "/tmp", "-e", "A=1", "-e", "B=x=y", "-u", "1000", "-t", "5", "box", "id"]],
    ["behind the id", ["box", "-w", "/tmp", "-e", "A=1", "-e", "B=x=y", "-u", "1000", "-t", "5", "id"]],
    ["on both sides", ["-e", "A=1", "-u", "1000", "box", "-w", "/tmp", "-e", "B=x=y", "-t", "5", "--", "id"]],
  ])("accepts options %s", async (_, args) => {
    const expected = { cmd: "id", workdir: "/tmp", env: { A: "1", B: "x=y" }, user: 1000, timeout: 5 };
    expect(await bodyOf(args)).toEqual(expected);
  });

  it("passes standard input on only when asked to", async () => {
    expect(await bodyOf(["box", "-i", "cat"], { input: "grüße\n" })).toEqual({ cmd: "cat", stdin: "grüße\n" });
    expect(await bodyOf(["box", "cat"], { input: "x" })).toEqual({ cmd: "cat" });
  });

  it.each([
    ["not UTF-8", Buffer.from([0xff])],
    ["larger than 1 MiB", Buffer.alloc(1024 * 1024 + 1, "x")],
  ])("refuses standard input that is %s", async (reason, input) => {
    const { status, stderr, requests } = await exec(["box", "-i", "cat"], result, { input });
    expect(status).toBe(125);
    expect(stderr).toContain(reason);
    expect(requests).toEqual([]);
  });

  it("passes output and status on as they are", async () => {
    const answer = { ...result, exit_code: 3, stdout: "\u001b[31mred\r\n", stderr: "\u0007oh" };
    expect(await exec(["box", "x"], answer)).toMatchObject({
      status: 3,
      stdout: "\u001b[31mred\r\n",
      stderr: "\u0007oh",
    });
  });

  it("says what is missing from the output and why a command died", async () => {
    const answer = { ...result, exit_code: 124, stdout_truncated: true, timed_out: true };
    const { status, stderr } = await exec(["box", "x"], answer);
    expect(status).toBe(124);
    expect(stderr).toBe(
      "sq: standard output was longer, its end is missing\nsq: the command took too long and was killed\n",
    );
  });

  it("prints the API's JSON, and still exits as the command did", async () => {
    const { status, stdout } = await exec(["box", "--json", "x"], { ...result, exit_code: 4 });
    expect(status).toBe(4);
    expect(JSON.parse(stdout)).toEqual({ ...result, exit_code: 4 });
  });

  it("exits with 125 when the command could not start", async () => {
    const error = { error: "no \u001b[1mbox", code: "sandbox_not_found" };
    const plain = await exec(["box", "x"], new FakeReply(404, error));
    expect(plain).toMatchObject({ status: 125, stdout: "", stderr: "sq: no [1mbox\n" });
    const json = await exec(["box", "--json", "x"], new FakeReply(404, error));
    expect(JSON.parse(json.stderr)).toEqual(error);
  });

  it.each([[[]], [["box"]], [["box", "--"]], [["-x", "box", "y"]], [["box", "-x", "y"]], [["box", "-e", "A", "y"]]])(
    "exits with 2 for %j",
    async (args) => {
      const { status, stderr, requests } = await exec(args);
      expect(status).toBe(2);
      expect(stderr).not.toBe("");
      expect(requests).toEqual([]);
    },
  );

  it("shows its help also behind the id", async () => {
    const { status, stdout } = await exec(["box", "--help"]);
    expect(status).toBe(0);
    expect(stdout).toContain("Usage: sq exec <id> [options] [--] <command...>");
  });

  it("aborts the request and exits with 130 on Ctrl-C", async () => {
    const controller = new AbortController();
    const answer = ({ signal }: { signal: AbortSignal }): Promise<never> =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason as Error));
        controller.abort(new Interruption("SIGINT"));
      });
    expect(await exec(["box", "x"], answer, { signal: controller.signal })).toMatchObject({ status: 130, stderr: "" });
  });

  it("stops reading standard input on Ctrl-C", async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Interruption("SIGINT")), 20);
    const input = new Readable({ read: () => undefined });
    const { status } = await exec(["box", "-i", "x"], result, { signal: controller.signal, input });
    expect(status).toBe(130);
    expect(input.destroyed).toBe(true);
  });
});
