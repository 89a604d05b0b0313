import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { JobInfo, PresetJob } from "@squash/sdk";
import { a, places, usualZone } from "../support/internet.js";
import { lacks } from "../support/needs.js";
import { useOnline } from "../support/online.js";
import { makeApkBase, makeAptBase, makeRepository, scratchOf } from "../support/package-bases.js";

const { squashd, internet, outside } = useOnline();
const folder = join(squashd.dataDir, "modules");
const mirror = mkdtempSync(join(tmpdir(), "sqt-mirror-"));
const port = 8099;
const url = `http://mirror.example.org:${port}`;
let servers: ChildProcess[] = [];

beforeAll(async () => {
  makeRepository(mirror, [
    { name: "git", version: "7.5" },
    { name: "broken", version: "1", script: "echo it is broken; exit 3" },
    { name: "endless", version: "1", script: "echo it goes on; sleep 600" },
  ]);
  mkdirSync(folder, { recursive: true });
  makeAptBase(folder, "000-apt", `${url}/`);
  makeApkBase(folder, "000-apk", url, "http://www.example.org/stolen");
  makeApkBase(folder, "000-inside", `http://${places.lan}:${port}`, "http://www.example.org/stolen");
  servers = [places.calmWeb, places.lan].map((address) => {
    const argv = ["httpd", "-f", "-p", `${address}:${port}`, "-h", mirror];
    const [program, args] = outside.enter("busybox", argv);
    return spawn(program, args, { stdio: "ignore" });
  });
  await internet.setZone({ ...usualZone, "mirror.example.org": a("mirror.example.org", places.calmWeb) });
});
afterEach(async () => {
  await expect.poll(() => squashd.client.list()).toEqual([]);
  await expect.poll(() => scratchOf(join(squashd.dataDir, "cache"))).toEqual([]);
});
afterAll(() => {
  for (const server of servers) server.kill("SIGKILL");
  rmSync(mirror, { recursive: true });
});

async function endOf(request: Omit<PresetJob, "kind">): Promise<JobInfo> {
  let job = await squashd.client.startJob({ kind: "preset", ...request });
  for await (const next of squashd.client.watchJob(job.id)) job = next;
  return job;
}

async function inSandbox(layers: string[], command: string): Promise<string> {
  await using sandbox = await squashd.client.create({ layers });
  const { stdout, stderr, exit_code: status } = await sandbox.exec(command);
  expect([stderr, status]).toEqual(["", 0]);
  return stdout;
}

const digests = (name: string): unknown =>
  (JSON.parse(readFileSync(join(folder, `${name}.manifest.json`), "utf8")) as { files: unknown }).files;
const made = (name: string): string[] => readdirSync(folder).filter((file) => file.includes(name));

describe.skipIf(lacks("root"))("mkmod preset", () => {
  it("installs with apt in a sandbox, and makes a module that works above the same base; again, the same bytes", async () => {
    const ended = await squashd.sq("mkmod", "preset", "git", "--base", "000-apt");
    expect([ended.stderr.split("\n").slice(-3).join(" "), ended.status]).toEqual([expect.any(String), 0]);
    expect(ended.stdout).toBe("200-git\n");
    expect(ended.stderr).toContain("installing git …\n");
    expect(await squashd.client.module("200-git")).toMatchObject({
      source: "mkmod preset git",
      requires: ["000-apt"],
      formats: ["squashfs", "erofs"],
    });
    const command = "git; dpkg-query -W git; ls /var/lib/apt/lists /var/cache/apt/archives /tmp";
    const lists = "/tmp:\n\n/var/cache/apt/archives:\npartial\n\n/var/lib/apt/lists:\npartial\n";
    expect(await inSandbox(["000-apt", "200-git"], command)).toBe(`git version 7.5\ngit\t7.5\n${lists}`);
    const first = digests("200-git");
    expect(await endOf({ preset: "git", base: "000-apt", replace: true })).toMatchObject({
      state: "done",
      error: null,
    });
    expect(digests("200-git")).toEqual(first);
  });

  it("makes the same bytes again, though its base is of the second in which the first began", async () => {
    const secondS = Math.ceil(Date.now() / 1000) + 2;
    makeAptBase(folder, "000-young", `${url}/`, secondS);
    await pause(secondS * 1000 - Date.now());
    const request = { preset: "git", base: "000-young", name: "200-young" };
    expect(await endOf(request)).toMatchObject({ state: "done", error: null });
    const first = digests("200-young");
    await pause((secondS + 1) * 1000 - Date.now());
    expect(await endOf({ ...request, replace: true })).toMatchObject({ state: "done", error: null });
    expect(digests("200-young")).toEqual(first);
  });

  it("installs with apk, reaching the mirror and nothing else", async () => {
    const from = internet.arrivals.length;
    const job = await endOf({ preset: "git", base: "000-apk", name: "200-git-apk" });
    expect(job).toMatchObject({ state: "done", error: null, modules: ["200-git-apk"] });
    expect(job.lines).toContain("it works: git version 7.5");
    const command = "git; ls /reached /var/cache/apk 2>/dev/null; ls /lib/apk/db";
    expect(await inSandbox(["000-apk", "200-git-apk"], command)).toBe("git version 7.5\ninstalled\n");
    await internet.settled();
    expect(internet.seen("http", from)).toEqual([]);
    expect(internet.seen("dns", from).filter((each) => !each.endsWith(" mirror.example.org"))).toEqual([]);
  });

  it("opens a private address that a base names only where the request says so", async () => {
    expect(await endOf({ preset: "git", base: "000-inside", name: "200-inside" })).toMatchObject({
      state: "failed",
      code: "build_failed",
      error: `Cannot install packages: its base names the package server ${places.lan}, which is not public; allow it with allow_net`,
    });
    const allowed = { allow_net: [`${places.lan}:${port}`] };
    expect(await endOf({ preset: "git", base: "000-inside", name: "200-inside", ...allowed })).toMatchObject({
      state: "done",
    });
  });

  it("says what failed, and leaves neither sandbox nor module", async () => {
    const packages = { preset: "packages", base: "000-apt" };
    const failing: [Omit<PresetJob, "kind">, RegExp][] = [
      [{ ...packages, packages: ["absent"] }, /^Cannot install packages: apt-get: .*Unable to locate package absent/],
      [{ ...packages, packages: ["broken"] }, /^Cannot install packages: apt-get: .*broken/],
      [{ ...packages, base: "000-apk", packages: ["absent"] }, /apk: .*absent: no such package/],
      [{ preset: "git", base: "000-base-test" }, /the base has neither apt-get nor apk/],
      [{ preset: "git", base: "000-apk", allow_net: ["none"] }, /apk: .*no such package/],
    ];
    const ended = failing.map(([request], at) => endOf({ ...request, name: `200-bad-${at}` }));
    for (const [at, { state, error }] of (await Promise.all(ended)).entries())
      expect([state, error]).toEqual(["failed", expect.stringMatching(failing[at]?.[1] ?? "")]);
    expect(made("200-bad")).toEqual([]);
  });

  it.each([
    [{ preset: "absent" }, "invalid_request", /Cannot find preset "absent": known are python3, /],
    [{ preset: "packages", packages: ["git"] }, "invalid_request", /needs a name/],
    [{ preset: "packages", name: "200-x" }, "invalid_request", /needs packages/],
    [{ preset: "git", packages: ["--root=/"] }, "invalid_request", /no name of a package/],
    [{ preset: "git", base: "000-absent" }, "module_not_found", /000-absent/],
    [{ preset: "git", base: "000-apt" }, "module_exists", /200-git/],
    [{ preset: "git", base: "200-git", name: "100-low" }, "invalid_request", /would lie below/],
  ])("refuses %j at once", async (request, code, message) => {
    await expect(squashd.client.startJob({ kind: "preset", ...request })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
    });
  });

  it("destroys its sandbox when it is cancelled, and when squashd ends or was killed", async () => {
    const begin = async (): Promise<JobInfo> => {
      const request = { preset: "packages", packages: ["endless"], name: "200-endless", base: "000-apk" };
      const job = await squashd.client.startJob({ kind: "preset", ...request });
      for await (const { step } of squashd.client.watchJob(job.id)) if (step === "it goes on") break;
      expect(await squashd.client.list()).toMatchObject([{ owner: "squashd-builder", task: "mkmod preset packages" }]);
      return job;
    };
    const { id } = await begin();
    await squashd.client.removeJob(id);
    expect(await squashd.client.job(id)).toMatchObject({ state: "cancelled" });
    expect(await squashd.client.list()).toEqual([]);
    await begin();
    await squashd.end("SIGTERM");
    await squashd.start();
    await expect.poll(() => squashd.client.list()).toEqual([]);
    await begin();
    await squashd.client.create({ id: "builder-mine", owner: "squashd-builder", layers: ["000-apk"] });
    await squashd.end("SIGKILL");
    await squashd.start();
    await expect.poll(async () => (await squashd.client.list()).map((each) => each.id)).toEqual(["builder-mine"]);
    await squashd.client.sandbox("builder-mine").destroy();
    expect(made("200-endless")).toEqual([]);
  });
});
