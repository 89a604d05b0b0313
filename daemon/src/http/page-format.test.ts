import { join } from "node:path";
import { pathToFileURL } from "node:url";
import fc from "fast-check";
import { describe, expect, it } from "vitest";

interface Format {
  visible(value: unknown, options?: { limit?: number; lines?: boolean }): string;
  bytes(size: unknown): string;
  duration(seconds: number): string;
  took(milliseconds: number): string;
  age(time: string, nowMs: number): string;
  commandText(command: unknown): string;
  outcome(result: object): { text: string; isGood: boolean };
  routesOf(document: unknown): { method: string; path: string; summary: string }[];
  matches(sandbox: object, words: string): boolean;
  pauseMs(failures: number): number;
  createBody(fields: Record<string, string>): object;
  reachOf(sandbox: object): string;
  execBody(fields: Record<string, string>): object;
}

const file = pathToFileURL(join(import.meta.dirname, "../../../web/format.js")).href;
const format = (await import(/* @vite-ignore */ file)) as Format;
const { visible } = format;

describe("visible()", () => {
  it.each([
    ["plain text, ünïcödé 漢字 🙂", "plain text, ünïcödé 漢字 🙂"],
    ["\u001b[31mred\u001b[0m\u0007", "␛[31mred␛[0m␇"],
    ["a\nb\tc\rd\0", "a␊b␉c␍d␀"],
    ["\u007f\u0085\u009b", "␡⟨U+0085⟩⟨U+009B⟩"],
    ["user\u202egnp.exe", "user⟨U+202E⟩gnp.exe"],
    ["\u2066x\u2069\u200f\u200b\ufeff\u00ad", "⟨U+2066⟩x⟨U+2069⟩⟨U+200F⟩⟨U+200B⟩⟨U+FEFF⟩⟨U+00AD⟩"],
    ["\u2028\u2029\u00a0\u3000\u3164\u2800", "⟨U+2028⟩⟨U+2029⟩⟨U+00A0⟩⟨U+3000⟩⟨U+3164⟩⟨U+2800⟩"],
    ["\u{e0041}\ue000\ud800", "⟨U+E0041⟩⟨U+E000⟩⟨U+D800⟩"],
    ["<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"],
  ])("shows what would not be seen: %j", (text, shown) => {
    expect(visible(text)).toBe(shown);
  });

  it("keeps line ends and tabs where there are lines", () => {
    expect(visible("a\r\n\tb\rc\u001b\n", { lines: true })).toBe("a\n\tb␍c␛\n");
  });

  it("cuts between characters", () => {
    expect(visible("🙂🙂🙂", { limit: 2 })).toBe("🙂🙂…");
    expect(visible("abc", { limit: 3 })).toBe("abc");
  });

  it("takes what is no text", () => {
    expect([visible(null), visible(undefined), visible(7), visible(["a"])]).toEqual(["", "", "7", "a"]);
  });

  it("gives text of a bounded length without controls and marks, whatever it gets", () => {
    const texts = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: fc.constantFrom("\u001b", "\u202e", "\ud83d", "\n", "a") }),
    );
    fc.assert(
      fc.property(texts, fc.nat(50), fc.boolean(), (text, limit, lines) => {
        const shown = visible(text, { limit, lines });
        expect(shown.replaceAll(lines ? /[\n\t]/g : /$^/g, "")).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/u);
        expect(shown.length).toBeLessThanOrEqual(limit * "⟨U+10FFFF⟩".length + 1);
      }),
    );
  });
});

describe("figures", () => {
  it.each([
    [0, "0 B"],
    [1536, "1.5 KiB"],
    [20 * 1024 ** 2, "20 MiB"],
    [-1, "?"],
    ["7", "?"],
  ])("bytes(%j) is %s", (size, text) => expect(format.bytes(size)).toBe(text));

  it.each([
    [-5, "0 s"],
    [59.9, "59 s"],
    [7500, "2 h 5 min"],
    [90_000, "1 d 1 h"],
    [NaN, "?"],
  ])("duration(%d) is %s", (seconds, text) => expect(format.duration(seconds)).toBe(text));

  it.each([
    [3.4, "3 ms"],
    [1_234, "1.2 s"],
    [125_000, "2 min"],
    [NaN, "?"],
  ])("took(%d) is %s", (milliseconds, text) => expect(format.took(milliseconds)).toBe(text));

  it("age() counts from an RFC 3339 time", () => {
    expect(format.age("2026-01-01T00:00:00Z", Date.parse("2026-01-01T00:10:00Z"))).toBe("10 min");
    expect(format.age("yesterday", 0)).toBe("?");
  });

  it("pauseMs() doubles up to half a minute", () => {
    expect([0, 1, 2, 3, 4, 100].map(format.pauseMs)).toEqual([3_000, 6_000, 12_000, 24_000, 30_000, 30_000]);
  });
});

describe("commands", () => {
  it("are shown as they were given", () => {
    expect(format.commandText("echo $HOME")).toBe("echo $HOME");
    expect(format.commandText(["printf", "%s|", "a b", "it's", ""])).toBe(String.raw`printf '%s|' 'a b' 'it'\''s' ''`);
  });

  it.each([
    [{ exit_code: 0 }, "exit 0", true],
    [{ exit_code: 3 }, "exit 3", false],
    [{ exit_code: 137 }, "signal 9", false],
    [{ exit_code: 255 }, "exit 255", false],
    [{ exit_code: 124, timed_out: true }, "timed out", false],
    [{ exit_code: 137, oom_killed: true }, "signal 9, out of memory", false],
    [{ exit_code: 0, oom_killed: true }, "exit 0, out of memory", false],
  ])("end in words: %j", (result, text, isGood) => {
    expect(format.outcome(result)).toEqual({ text, isGood });
  });

  it("are sent as they were typed, without what was left empty", () => {
    const typed = { command: " echo  a\n", workdir: " /tmp ", user: "1000", timeout: "5" };
    expect(format.execBody(typed)).toEqual({ cmd: " echo  a\n", workdir: "/tmp", user: 1000, timeout: 5 });
    expect(format.execBody({ command: "id", workdir: "", user: "eve", timeout: "" })).toEqual({
      cmd: "id",
      user: "eve",
    });
  });
});

describe("sandboxes", () => {
  const empty = { id: "a", layers: "", cpu: "", memory: "", lifetime: "", reach: "", owner: "", task: "" };

  it("are created of what was typed, and the daemon judges it", () => {
    expect(format.createBody(empty)).toEqual({ id: "a" });
    const typed = {
      ...empty,
      layers: "b, a ",
      cpu: "0.5",
      memory: "64",
      lifetime: "soon",
      reach: "a.org, 10.0.0.0/8:22",
    };
    expect(format.createBody(typed)).toEqual({
      id: "a",
      layers: "b, a",
      cpu: 0.5,
      memory_mb: 64,
      max_lifetime_s: "soon",
      allow_net: ["a.org", "10.0.0.0/8:22"],
    });
  });

  it.each([
    [null, [], "10.200.0.9", "reaches everything public"],
    [[], ["b.org"], "10.200.0.9", "reaches everything public, not b.org"],
    [["a.org", "192.0.2.7"], ["b.a.org"], "10.200.0.9", "reaches a.org, 192.0.2.7, not b.a.org"],
    [["none"], ["b.org"], "10.200.0.9", "reaches nothing"],
    [null, [], null, "reaches nothing"],
  ])("reach what is allowed, and not denied: %j, %j, %j", (allow, deny, address, text) => {
    expect(format.reachOf({ allow_net: allow, deny_net: deny, address })).toBe(text);
  });

  it("are found by what a person knows of them", () => {
    const sandbox = { id: "Build-1", owner: "eve", task: "tests", state: "ready", layers: ["000-base"] };
    for (const words of ["", " build", "EVE", "test", "READY", "base"])
      expect(format.matches(sandbox, words)).toBe(true);
    expect(format.matches(sandbox, "other")).toBe(false);
  });
});

it("routesOf() reads an OpenAPI document, and nothing where there is none", () => {
  const paths = { "/a": { post: { summary: "makes" }, get: {}, parameters: [] }, "/b": null };
  expect(format.routesOf({ paths })).toEqual([
    { method: "GET", path: "/a", summary: "" },
    { method: "POST", path: "/a", summary: "makes" },
  ]);
  for (const document of [null, {}, { paths: {} }]) expect(format.routesOf(document)).toEqual([]);
});
