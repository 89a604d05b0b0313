import type { ExecRequest, ExecResult } from "@squash/sdk/protocol";
import { describe, expect, it } from "vitest";
import { check, findManager, install, type InstallContext } from "./install.js";
import { isPackageName, managerOf, packageManagers } from "./package-manager.js";
import { presetOf, presets } from "./presets.js";

type Answer = Partial<ExecResult>;

/** A sandbox that answers as a test says. */
function sandbox(answer: (cmd: readonly string[]) => Answer | Promise<Answer>) {
  const asked: ExecRequest[] = [];
  const told: string[] = [];
  const unused = () => Promise.reject(new Error("unused"));
  const exec = async (_: string, request: ExecRequest): Promise<ExecResult> => {
    asked.push(request);
    const given = await answer(request.cmd as string[]);
    return { exit_code: 0, stdout: "", stderr: "", timed_out: false, ...given } as ExecResult;
  };
  const sandboxes = { create: unused, destroy: unused, setNetwork: unused, find: () => null, exec };
  const progress = (line: string): void => void told.push(line);
  const context: InstallContext = { sandboxes, id: "box", signal: new AbortController().signal, progress };
  return { context, asked, told };
}

const [apt, apk] = packageManagers;
if (apt === undefined || apk === undefined) throw new Error("there are two");

describe("findManager()", () => {
  it("finds apt with its sources in both formats", async () => {
    const list = "deb [trusted=yes] http://a.example/debian bookworm main\n# deb http://no.example x y\n";
    const stanza = "Types: deb\nURIs: https://b.example/x\nSuites: s\nComponents: c\n\n\n";
    const { context } = sandbox(([, , script = ""]) => ({
      stdout: script.startsWith("for name") ? "apt-get\napk\n" : `${list}\n=== deb822 ===\n${stanza}`,
    }));
    const { manager, urls } = await findManager(context);
    expect([manager.name, urls]).toEqual(["apt", ["http://a.example/debian", "https://b.example/x"]]);
  });

  it("finds apk with its repositories", async () => {
    const { context } = sandbox(([, , script = ""]) => ({
      stdout: script.startsWith("for name")
        ? "apk\n"
        : "https://a.example/v3/main\n#http://no.example\n@edge https://b.example/edge\n/srv/own\n",
    }));
    const { manager, urls } = await findManager(context);
    expect([manager.name, urls]).toEqual(["apk", ["https://a.example/v3/main", "https://b.example/edge"]]);
  });

  it("refuses a base that has neither", async () => {
    const { context } = sandbox(() => ({ stdout: "sh\n" }));
    await expect(findManager(context)).rejects.toMatchObject({ code: "build_failed" });
    expect(managerOf("")).toBeNull();
  });
});

describe("install()", () => {
  it("runs each step as root with the settings of the machine, and packages behind the end of options", async () => {
    const { context, asked, told } = sandbox(() => ({}));
    await install(apt, ["git", "jq"], { ...context, settings: ["Acquire::http::Proxy=http://p.example"] });
    const commands = asked.map(({ cmd }) => (cmd as string[]).slice(4).join(" "));
    expect(commands[0]).toMatch(/^apt-get .*-o Acquire::http::Proxy=http:\/\/p\.example .*update$/);
    expect(commands[1]).toMatch(/^apt-get .* --yes install -- git jq$/);
    // which its package would link to, in a folder that a base without manual pages does not have
    expect(commands[1]).toContain("-o DPkg::Options::=--path-exclude=/usr/lib/jvm/*/man/* ");
    expect(asked[0]).toMatchObject({ user: "root", workdir: "/", timeout: 3600 });
    expect(told).toEqual(["reading the lists of packages", "installing git, jq"]);
  });

  it("tells the newest line meanwhile, without what could harm a terminal", async () => {
    let end = (): void => undefined;
    const over = new Promise<void>((resolve) => (end = resolve));
    const { context, told } = sandbox(async ([program]) => {
      if (program === "tail") return { stdout: "older\nUnpacking \u001b[2Jgit\n\n" };
      await over;
      return {};
    });
    const done = install(apk, ["git"], { ...context, settings: [] });
    await expect.poll(() => told, { timeout: 10_000 }).toEqual(["installing git", "Unpacking  [2Jgit"]);
    end();
    await done;
  }, 15_000);

  it("fails with the end of what was said", async () => {
    const { context } = sandbox(([program]) =>
      program === "tail" ? { stdout: "Reading…\nE: Unable to locate\u0000 package\n" } : { exit_code: 100 },
    );
    await expect(install(apk, ["git"], { ...context, settings: [] })).rejects.toMatchObject({
      code: "build_failed",
      message: "Cannot install packages: apk: Reading… | E: Unable to locate  package",
    });
    const late = sandbox(([program]) => (program === "tail" ? {} : { exit_code: 124, timed_out: true }));
    await expect(install(apk, ["git"], { ...late.context, settings: [] })).rejects.toThrow(/did not end within 3600 s/);
  });
});

describe("check()", () => {
  it("tells what a program says of itself, or why it does not", async () => {
    const good = sandbox(() => ({ stdout: "git version 2\n" }));
    await check(good.context, ["git", "--version"]);
    expect(good.told).toEqual(["it works: git version 2"]);
    const bad = sandbox(() => ({ exit_code: 127, stderr: "not found\n" }));
    await expect(check(bad.context, ["git", "--version"])).rejects.toThrow(
      "Cannot use what was installed: git --version failed: not found",
    );
  });
});

describe("presets", () => {
  it("are for both kinds of bases, checked, and have names of packages only", () => {
    for (const [name, { module, apt: debian, apk: alpine, check: program }] of Object.entries(presets)) {
      if (name === "packages") continue;
      expect(module).toMatch(/^[12]\d\d-[a-z0-9-]+$/);
      expect([debian.length > 0, alpine.length > 0, program !== null]).toEqual([true, true, true]);
      expect([...debian, ...alpine].filter((each) => !isPackageName(each))).toEqual([]);
    }
    expect(() => presetOf("constructor")).toThrow(/Cannot find preset "constructor": known are python3, /);
  });

  it.each(["", "-y", "--root=/", "a b", "../x", "a/b", "a=1", "A", "x;y"])("take no package %j", (name) => {
    expect(isPackageName(name)).toBe(false);
  });
});
