import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import type { Readable } from "node:stream";
import { SquashError } from "@squash/sdk/errors";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { buildInChild } from "./build-child.js";
import { LineReader, lineOf, type FromBuilder } from "./build-messages.js";
import type { BuildTask, TaskContext } from "./build-task.js";
import type { RunTool } from "./run-tool.js";

let dataDir: string;
let task: BuildTask;
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-child-"));
  const about = { dataDir, name: "200-a", builder: "a test", formats: ["squashfs"], force: false } as const;
  const source = { reference: null, layout: join(dataDir, "absent"), archive: null, platform: null, insecure: false };
  const credentials = { username: "me", password: "hidden" };
  task = { kind: "from-oci", ...about, ...source, requires: [], conflicts: [], perLayer: false, credentials };
});
afterEach(() => rmSync(dataDir, { recursive: true }));

const context = (more: Partial<TaskContext> = {}): TaskContext => ({
  signal: new AbortController().signal,
  progress: () => undefined,
  commit: (place) => place(),
  ...more,
});

/** A process that says these lines, one after another, each time it hears something, and then ends. */
function process(...lines: readonly (FromBuilder | string)[]): { run: RunTool; heard: () => string; argv: string[] } {
  let heard = "";
  const argv: string[] = [];
  const run: RunTool = async (words, { stdin, stdout }) => {
    argv.push(...words);
    const input = text(stdin as Readable).then((all) => (heard = all));
    for (const line of lines) {
      stdout?.write(typeof line === "string" ? line : lineOf(line));
      await new Promise((done) => setTimeout(done, 5));
    }
    await Promise.race([input, new Promise((done) => setTimeout(done, 20))]);
    return "";
  };
  return { run, heard: () => heard, argv };
}

const manifest = { schema: 1, name: "200-a", built_at: "", builder: "a test", files: {} } as const;

describe("buildInChild()", () => {
  it("tells the task on standard input alone, and puts in place when it may", async () => {
    const said: unknown[] = [];
    const { run, heard, argv } = process(
      { say: "progress", line: "packing ünï", fraction: 0.5 },
      { say: "finished", name: "200-a" },
      { say: "placed" },
      { say: "done", manifests: [manifest] },
    );
    const commit = async (place: () => Promise<void>, name: string): Promise<void> => {
      said.push(`commit ${name}`);
      await place();
      said.push("placed");
    };
    const progress = (line: string, fraction?: number): void => void said.push([line, fraction]);
    expect(await buildInChild(task, context({ commit, progress }), run)).toEqual([manifest]);
    expect(said).toEqual([["packing ünï", 0.5], "commit 200-a", "placed"]);
    expect(heard().split("\n").slice(0, 2)).toEqual([JSON.stringify(task), '{"say":"place"}']);
    expect(argv.join(" ")).not.toContain("hidden");
  });

  it("throws why it was not put in place", async () => {
    const { run, heard } = process(
      { say: "finished", name: "200-a" },
      { say: "failed", code: "module_in_use", message: "x" },
    );
    const commit = () => Promise.reject(new SquashError("module_in_use", "Cannot take it away"));
    await expect(buildInChild(task, context({ commit }), run)).rejects.toMatchObject({
      code: "module_in_use",
      message: "Cannot take it away",
    });
    expect(heard()).toContain('{"say":"refused","code":"module_in_use","message":"Cannot take it away"}');
  });

  it.each([
    [
      "a failure",
      [{ say: "failed", code: "build_failed", message: "the image is odd" }],
      "build_failed",
      /^the image is odd$/,
    ],
    ["no result", [], "build_failed", /without a result/],
    [
      "a result before it was put in place",
      [{ say: "finished", name: "200-a" }],
      "build_failed",
      /ended too early|without a result/,
    ],
  ] as const)("fails with a word for %s", async (_, lines, code, message) => {
    const { run } = process(...lines);
    await expect(buildInChild(task, context(), run)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
    });
  });

  it("passes a bug on as one", async () => {
    const { run } = process({ say: "failed", code: "internal", message: "TypeError: x" });
    const error: unknown = await buildInChild(task, context(), run).catch((cause: unknown) => cause);
    expect(error).not.toBeInstanceOf(SquashError);
    expect((error as Error).message).toBe("TypeError: x");
  });

  it("works with a process of its own, which says what is wrong, and ends when it is cancelled", async () => {
    await expect(buildInChild(task, context())).rejects.toMatchObject({ code: "build_failed" });
    const signal = AbortSignal.abort();
    await expect(buildInChild(task, context({ signal }))).rejects.toMatchObject({ code: "cancelled" });
    expect(readdirSync(join(dataDir, "cache"))).toEqual([]);
  }, 20_000);
});

describe("LineReader", () => {
  it("reads lines however they are cut, and refuses what has no end", () => {
    const reader = new LineReader();
    expect([...reader.add('{"a":1}\n{"b"')]).toEqual([{ a: 1 }]);
    expect([...reader.add(":2}\n")]).toEqual([{ b: 2 }]);
    expect(() => [...reader.add("x".repeat(17 * 1_048_576))]).toThrow(RangeError);
  });
});
