import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DoctorCheck } from "@squash/sdk/protocol";
import { afterAll, describe, expect, it } from "vitest";
import { runCommand, type commandLines } from "../support/commands.js";
import { lacks } from "../support/needs.js";

const home = mkdtempSync(join(tmpdir(), "squash-doctor-"));
afterAll(() => rmSync(home, { recursive: true }));

const settings = {
  SQUASH_DATA_DIR: join(home, "data"),
  SQUASH_RUN_DIR: join(home, "run"),
  SQUASH_CGROUP_ROOT: "sqt-doctor",
};
const doctor = (
  program: keyof typeof commandLines,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
) => runCommand(program, ["doctor", ...args], { ...settings, ...env });

describe.skipIf(lacks("root"))("doctor", () => {
  it("finds on this machine all that is required, in one format for programs", async () => {
    const { status, stdout, stderr } = await doctor("squashd", ["--json"]);
    const checks = JSON.parse(stdout) as DoctorCheck[];
    expect(checks.filter(({ ok, required }) => required && !ok)).toEqual([]);
    expect([status, stderr]).toEqual([0, ""]);
    for (const { name, detail } of checks)
      expect([name, detail]).toEqual([expect.stringMatching(/./), expect.stringMatching(/./)]);
    const names = checks.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of ["root", "kernel", "overlayfs", "cgroups", "sq-host", "data directory", "base module"])
      expect(names).toContain(name);
    const viaSq = await doctor("sq", ["--json"]);
    expect(viaSq).toMatchObject({ status: 0, stderr: "" });
    expect((JSON.parse(viaSq.stdout) as DoctorCheck[]).map(({ name }) => name)).toEqual(names);
  });

  it("shows the same to persons, each check in a line", async () => {
    const own = await doctor("squashd", []);
    expect(own).toMatchObject({ status: 0, stderr: "" });
    const lines = own.stdout.trimEnd().split("\n");
    for (const line of lines) expect(line).toMatch(/^(ok {2}|note) {2}\S/);
    expect(own.stdout).toMatch(
      /^note {2}base module {2,}none in ".*"; no sandbox can be created without; run "sq mkbase/m,
    );
    const table = await doctor("sq", []);
    expect(table.status).toBe(0);
    expect(table.stdout.trimEnd().split("\n")).toHaveLength(lines.length + 1);
    expect(table.stdout).toMatch(/✓ +sq-host /);
  });

  it("fails where something required is lacking, and says what to do", async () => {
    const missing = { SQUASH_HOST_BIN: join(home, "absent") };
    const own = await doctor("squashd", [], missing);
    expect(own.status).toBe(1);
    expect(own.stdout).toMatch(/^FAIL {2}sq-host +".*\/absent" is missing or not executable; npm run build:native/m);
    expect(await doctor("squashd", ["--json"], missing)).toMatchObject({ status: 1 });
    const table = await doctor("sq", [], missing);
    expect(table.status).toBe(1);
    expect(table.stdout).toMatch(/✗ +sq-host .*missing or not executable/);
  });

  it("changes nothing, and refuses arguments that it does not know", async () => {
    expect(await doctor("squashd", ["--jsn"])).toMatchObject({ status: 2, stdout: "", stderr: /there is no "--jsn"/ });
    expect(await doctor("sq", ["--jsn"])).toMatchObject({ status: 2, stdout: "" });
    expect(readdirSync(home)).toEqual([]);
  });
});
