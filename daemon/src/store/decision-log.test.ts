import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { NetworkDecision } from "@squash/sdk/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DecisionLog, type DecisionLogOptions } from "./decision-log.js";

let folder: string;
let errors: unknown[];
const logs: DecisionLog[] = [];

beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "decision-log-")), "audit");
  errors = [];
});
afterEach(async () => {
  for (const log of logs.splice(0)) await log.close();
  rmSync(join(folder, ".."), { recursive: true });
});

function open(options: Partial<DecisionLogOptions> = {}): DecisionLog {
  const log = new DecisionLog(folder, { report: (error) => errors.push(error), ...options });
  logs.push(log);
  return log;
}

function decision(rule: string, sandbox = "a"): NetworkDecision {
  const time = "2026-01-01T00:00:00.000Z";
  const where = { name: null, address: "1.2.3.4", port: 5, protocol: "tcp" } as const;
  return { time, sandbox, kind: "connection", ...where, verdict: "refused", rule };
}

const rules = async (log: DecisionLog, limit = 1_000, sandbox = "a"): Promise<string[]> =>
  (await log.read(sandbox, limit)).map(({ rule }) => rule);

const path = (number = 0): string => join(folder, number === 0 ? "egress.jsonl" : `egress.jsonl.${number}`);
const sizeOfOne = JSON.stringify(decision("0")).length + 1;

describe("DecisionLog", () => {
  it("has one object a line, in a file of root's alone, by itself after a moment", async () => {
    const log = open();
    log.append(decision("1"));
    log.append(decision("2"));
    await expect.poll(() => readdirSync(join(folder, ".."))).toEqual(["audit"]);
    await expect.poll(() => readFileSync(path(), "utf8")).not.toBe("");
    const lines = readFileSync(path(), "utf8").split("\n");
    expect(lines.map((line): unknown => (line === "" ? null : JSON.parse(line)))).toEqual([
      decision("1"),
      decision("2"),
      null,
    ]);
    expect([statSync(path()).mode & 0o777, statSync(folder).mode & 0o777]).toEqual([0o600, 0o700]);
  });

  it("gives the newest of one sandbox, oldest first, also what waits for the disk", async () => {
    const log = open();
    expect(await rules(log)).toEqual([]);
    for (const rule of ["1", "2", "3"]) {
      log.append(decision(rule));
      log.append(decision(`not ${rule}`, "b"));
    }
    expect(await log.read("a", 10)).toEqual([decision("1"), decision("2"), decision("3")]);
    expect(await rules(log, 2)).toEqual(["2", "3"]);
    expect(await rules(log, 0)).toEqual([]);
    expect(await rules(log, 9, "c")).toEqual([]);
  });

  it("goes on with the file of an earlier one", async () => {
    const first = open();
    first.append(decision("1"));
    await first.close();
    const second = open();
    second.append(decision("2"));
    expect(await rules(second)).toEqual(["1", "2"]);
    expect(readdirSync(folder)).toEqual(["egress.jsonl"]);
  });

  it("keeps so many files of so many bytes", async () => {
    const log = open({ maxBytes: 3 * sizeOfOne, files: 3 });
    for (let at = 0; at < 10; at += 1) {
      log.append(decision(String(at)));
      await log.flush();
      for (const name of readdirSync(folder))
        expect(statSync(join(folder, name)).size).toBeLessThanOrEqual(3 * sizeOfOne);
    }
    expect(readdirSync(folder).toSorted()).toEqual(["egress.jsonl", "egress.jsonl.1", "egress.jsonl.2"]);
    expect(await rules(log)).toEqual(["3", "4", "5", "6", "7", "8", "9"]);
    expect(await rules(log, 5)).toEqual(["5", "6", "7", "8", "9"]);
  });

  it("exchanges a full file of an earlier one before it writes", async () => {
    mkdirSync(folder);
    writeFileSync(path(), `${JSON.stringify(decision("old"))}\n`.repeat(3));
    const log = open({ maxBytes: 3 * sizeOfOne });
    log.append(decision("new"));
    expect(await rules(log, 2)).toEqual(["old", "new"]);
    expect(readFileSync(path(), "utf8")).toBe(`${JSON.stringify(decision("new"))}\n`);
  });

  it("reads each once while files are exchanged", async () => {
    const log = open({ maxBytes: 5 * sizeOfOne, files: 100 });
    const written = Array.from({ length: 60 }, (_, at) => String(at));
    for (const rule of written) {
      log.append(decision(rule));
      await log.flush();
    }
    const reading = rules(log);
    for (let at = 0; at < 100; at += 1) {
      log.append(decision("later"));
      await log.flush();
    }
    expect((await reading).filter((rule) => rule !== "later")).toEqual(written);
    expect(errors).toEqual([]);
  });
});

describe("read()", () => {
  /** Lines of such sizes, told from one another by their start. */
  const write = (sizes: readonly number[]): string[] => {
    const texts = sizes.map((size, at) => `${at}:${"é€😀".repeat(Math.ceil(size / 9))}`);
    mkdirSync(folder, { recursive: true });
    writeFileSync(path(), texts.map((rule) => `${JSON.stringify(decision(rule))}\n`).join(""));
    return texts;
  };

  it.each([
    [
      "many blocks, characters of several bytes across their borders",
      Array.from({ length: 3_000 }, (_, at) => at % 600),
    ],
    ["lines longer than a block", [100, 300_000, 100, 700_000, 100]],
    ["one line, longer than a block", [600_000]],
  ])("sees whole lines: %s", async (_, sizes) => {
    const texts = write(sizes);
    const found = await rules(open(), 5_000);
    expect(found.length).toBe(texts.length);
    expect(found.every((rule, at) => rule === texts[at])).toBe(true);
  });

  it("sees whole lines wherever the block's border lies in them", async () => {
    const blockBytes = 256 * 1024;
    for (let offset = -4; offset <= 4; offset += 1) {
      mkdirSync(folder, { recursive: true });
      const last = `${JSON.stringify(decision("last"))}\n`;
      const empty = `${JSON.stringify(decision(""))}\n`;
      const long = "x".repeat(blockBytes - last.length - empty.length + offset);
      const lines = ["first", long, "last"].map((rule) => `${JSON.stringify(decision(rule))}\n`);
      writeFileSync(path(), lines.join(""));
      expect((await rules(open())).map((rule) => rule.length)).toEqual([5, long.length, 4]);
    }
  });

  it("passes over a line that a crash cut off, which takes no other one with it", async () => {
    mkdirSync(folder);
    const whole = JSON.stringify(decision("whole"));
    writeFileSync(path(), `${whole}\n${whole.slice(0, 30)}`);
    const log = open();
    expect(await rules(log)).toEqual(["whole"]);
    log.append(decision("next"));
    expect(await rules(log)).toEqual(["whole", "next"]);
    appendFileSync(path(), 'null\n5\n"a"\n\n');
    expect(await rules(log)).toEqual(["whole", "next"]);
  });
});

describe("a disk that", () => {
  it("stands still costs lines, which are counted in the log", async () => {
    const log = open();
    for (let at = 0; at < 20_005; at += 1) log.append(decision(String(at)));
    expect((await rules(log, 30_000)).length).toBe(20_000);
    const counts = readFileSync(path(), "utf8")
      .split("\n")
      .filter((line) => line.includes("lost"));
    expect(counts.map((line): unknown => JSON.parse(line))).toEqual([{ time: expect.any(String), lost: 5 }]);
    log.append(decision("after"));
    expect(await rules(log, 1)).toEqual(["after"]);
  });

  it("refuses is reported; what was lost by it is counted as well", async () => {
    writeFileSync(folder, "a file in place of the folder");
    const log = open();
    log.append(decision("1"));
    log.append(decision("2"));
    await log.flush();
    expect(errors).toEqual([expect.objectContaining({ code: "EEXIST" })]);
    rmSync(folder);
    log.append(decision("3"));
    expect(await rules(log)).toEqual(["3"]);
    expect(readFileSync(path(), "utf8")).toContain('"lost":2');
    expect(errors).toHaveLength(1);
  });

  it("cannot be read tells the reader, and hinders nobody else", async () => {
    mkdirSync(path(1), { recursive: true });
    const log = open();
    log.append(decision("1"));
    await expect(log.read("a", 10)).rejects.toMatchObject({ code: "EISDIR" });
    log.append(decision("2"));
    rmSync(path(1), { recursive: true });
    expect(await rules(log)).toEqual(["1", "2"]);
  });
});

describe("close()", () => {
  it("writes what waits", async () => {
    const log = open();
    log.append(decision("1"));
    await log.close();
    expect(readFileSync(path(), "utf8")).toBe(`${JSON.stringify(decision("1"))}\n`);
    await log.close();
  });
});
