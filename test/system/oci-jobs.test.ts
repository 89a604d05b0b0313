import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { FromOciJob, JobInfo } from "@squash/sdk";
import { FakeRegistry } from "../../daemon/src/modules/oci/testing/fake-registry.js";
import {
  hostArchitecture,
  layoutFiles,
  makeImage,
  makeIndex,
  savedArchive,
  writeFiles,
  type TestImage,
} from "../../daemon/src/modules/oci/testing/images.js";
import { runCommand, type Ended } from "../support/commands.js";
import { hostState, settledState, type HostState } from "../support/leaks.js";
import { lacks } from "../support/needs.js";
import { TestSquashd } from "../support/squashd.js";

const home = mkdtempSync(join(tmpdir(), "squash-oci-jobs-"));
const open = join(home, "open");
// in the namespace of this process, so that its builders reach the test's registry
const squashd = new TestSquashd({
  here: true,
  env: { SQUASH_SUBNET: "none", SQUASH_BUILD_DIRS: open, SQUASH_LOG_LEVEL: "debug" },
});
const folder = join(squashd.dataDir, "modules");
const registry = new FakeRegistry();
let image: TestImage;
let before: HostState;

beforeAll(async () => {
  before = hostState([squashd.mark]);
  mkdirSync(open);
  await registry.start();
  const lower = [
    { name: "opt/a", content: "from the lower layer" },
    { name: "opt/gone", content: "x" },
  ];
  const upper = [{ name: "opt/.wh.gone" }, { name: "opt/b", content: "from the upper layer" }];
  image = await makeImage([{ members: lower, compression: "gzip" }, { members: upper }], {
    config: { Env: ["GREETING=hello"] },
    architecture: hostArchitecture,
  });
  registry.add(image, "1.0");
  await squashd.start();
});
afterEach(async () => {
  registry.instead = () => false;
  await expect
    .poll(() => readdirSync(join(squashd.dataDir, "cache")).filter((name) => name.startsWith("mkbase-")))
    .toEqual([]);
  expect(readdirSync(folder).filter((name) => name.startsWith("."))).toEqual([]);
  await expect.poll(() => workers()).toEqual([]);
});
afterAll(async () => {
  await squashd[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
  expect(await settledState(before, [squashd.mark])).toEqual(before);
  rmSync(home, { recursive: true, force: true });
});

const sq = (...args: string[]): Promise<Ended> => squashd.sq("mkmod", "from-oci", ...args);

async function endOf(request: Omit<FromOciJob, "kind">): Promise<JobInfo> {
  let job = await squashd.client.startJob({ kind: "from-oci", ...request });
  for await (const next of squashd.client.watchJob(job.id)) job = next;
  return job;
}

/** Process ids of this squashd's builders. */
function workers(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => textOf(`/proc/${pid}/cmdline`).includes("build-worker.js"))
    .filter((pid) => new RegExp(`^PPid:\\s${squashd.pid}$`, "m").test(textOf(`/proc/${pid}/status`)))
    .map(Number);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return ""; // gone
  }
}

const filesOf = (name: string): unknown =>
  (JSON.parse(readFileSync(join(folder, `${name}.manifest.json`), "utf8")) as { files: unknown }).files;

async function inSandbox(layers: string[], command: string): Promise<string> {
  await using sandbox = await squashd.client.create({ layers });
  const { stdout, stderr, exit_code: status } = await sandbox.exec(command);
  expect([stderr, status]).toEqual(["", 0]);
  return stdout;
}

describe.skipIf(lacks("root"))("mkmod from-oci as a job", () => {
  it("makes a module of a registry's image, with its defaults, as the command of its own does", async () => {
    const reference = `${registry.host}/team/image:1.0`;
    const ended = await sq(reference, "--name", "200-image");
    expect(ended).toMatchObject({ status: 0, stdout: "200-image\n" });
    expect(ended.stderr).toMatch(/packing 200-image …\n/);
    const command = "cat /opt/a; ls /opt; echo $GREETING";
    expect(await inSandbox(["000-base-test", "200-image"], command)).toBe("from the lower layera\nb\nhello\n");
    const dataDir = join(home, "other");
    const own = ["mkmod", "from-oci", reference, "--name", "200-image"];
    expect(await runCommand("squashd", own, { SQUASH_DATA_DIR: dataDir })).toMatchObject({ status: 0 });
    const { files } = JSON.parse(readFileSync(join(dataDir, "modules/200-image.manifest.json"), "utf8")) as {
      files: unknown;
    };
    expect(filesOf("200-image")).toEqual(files);
    await expect(squashd.client.startJob({ kind: "from-oci", reference, name: "200-image" })).rejects.toMatchObject({
      code: "module_exists",
    });
  });

  it("makes a module of each layer, and tells their names", async () => {
    const ended = await sq(`${registry.host}/team/image:1.0`, "--per-layer", "--name", "210-parts");
    const names = ["210-parts-layer-1", "211-parts-layer-2"];
    expect(ended).toMatchObject({ status: 0, stdout: names.map((name) => `${name}\n`).join("") });
    expect(await inSandbox(["000-base-test", ...names], "ls /opt")).toBe("a\nb\n");
    await using sandbox = await squashd.client.create({ layers: ["000-base-test", ...names] });
    const job = await endOf({
      reference: `${registry.host}/team/image:1.0`,
      per_layer: true,
      name: "210-parts",
      replace: true,
    });
    expect(job).toMatchObject({ state: "failed", code: "module_in_use" });
    expect((await sandbox.exec("ls /opt")).stdout).toBe("a\nb\n");
  });

  it("reads layouts and archives below the operator's directories only", async () => {
    const files = layoutFiles(image, makeIndex([[null, image.manifest, "team/image:1.0"]]).bytes);
    writeFiles(join(open, "layout"), files);
    writeFiles(join(home, "layout"), files);
    writeFileSync(join(open, "saved.tar"), await savedArchive(image, "team/image:1.0"));
    expect(await endOf({ layout: join(open, "layout"), name: "220-layout" })).toMatchObject({ state: "done" });
    expect(await endOf({ archive: join(open, "saved.tar"), reference: "team/image:1.0" })).toMatchObject({
      state: "done",
      modules: ["000-image-1.0"],
    });
    for (const path of [join(home, "layout"), join(open, "../layout"), "/etc", join(open, "absent")])
      await expect(squashd.client.startJob({ kind: "from-oci", layout: path, name: "220-x" })).rejects.toMatchObject({
        code: "invalid_request",
        message: expect.stringMatching(/no directory below one of SQUASH_BUILD_DIRS/) as string,
      });
  });

  it("shows a password to the registry alone", async () => {
    const password = "a-pass-word-of-this-test";
    const header = `Basic ${Buffer.from(`me:${password}`).toString("base64")}`;
    const seen: string[] = [];
    registry.instead = ({ headers }, response) => {
      for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid))
        for (const file of ["cmdline", "environ"])
          if (textOf(`/proc/${pid}/${file}`).includes(password)) seen.push(`${pid} ${file}`);
      if (headers.authorization === header) return false;
      response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
      return true;
    };
    const reference = `${registry.host}/team/image:1.0`;
    const authfile = join(home, "config.json");
    const auth = Buffer.from(`me:${password}`).toString("base64");
    writeFileSync(authfile, JSON.stringify({ auths: { [registry.host]: { auth } } }));
    expect(await sq(reference, "--name", "230-private", "--authfile", authfile)).toMatchObject({ status: 0 });
    const wrong = await endOf({ reference, name: "230-wrong", username: "me", password: `${password}-wrong` });
    expect(wrong).toMatchObject({ state: "failed", code: "build_failed" });
    const broken = { kind: "from-oci", reference, username: 1, password } as unknown as FromOciJob;
    const refusal: unknown = await squashd.client.startJob(broken).catch((error: unknown) => error);
    expect(seen).toEqual([]);
    const told = JSON.stringify([await squashd.client.jobs(), refusal, (refusal as Error).message, squashd.output]);
    expect(told).not.toContain(password);
    expect(told).not.toContain(auth);
    const grep = `grep -rl -e ${password} -e ${auth} ${squashd.dataDir} ${squashd.runDir} 2>/dev/null || true`;
    expect(execFileSync("sh", ["-c", grep], { encoding: "utf8" })).toBe("");
  });

  it("is cancelled in the midst of a download, with its process", async () => {
    const asked = new Promise<void>((resolve) => {
      registry.instead = ({ url = "" }, response) => {
        if (!url.includes("/manifests/")) return false;
        response.write("{"); // and no end of it
        resolve();
        return true;
      };
    });
    const reference = `${registry.host}/team/image:1.0`;
    const job = await squashd.client.startJob({ kind: "from-oci", reference, name: "240-cancelled" });
    await asked;
    expect(workers()).toHaveLength(1);
    await squashd.client.removeJob(job.id);
    expect(await squashd.client.job(job.id)).toMatchObject({ state: "cancelled" });
    expect(readdirSync(folder).filter((name) => name.includes("240-cancelled"))).toEqual([]);
  });

  it("fails with a word when its process dies, and ends when squashd does", async () => {
    const reference = `${registry.host}/team/image:1.0`;
    let asked = (): void => undefined;
    registry.instead = (_, response) => {
      response.write("{");
      asked();
      return true;
    };
    const begin = async (name: string): Promise<{ job: JobInfo; worker: number }> => {
      const began = new Promise<void>((resolve) => (asked = resolve));
      const job = await squashd.client.startJob({ kind: "from-oci", reference, name });
      await began;
      return { job, worker: workers()[0] ?? 0 };
    };
    const first = await begin("240-died");
    process.kill(first.worker, "SIGKILL");
    let { job } = first;
    for await (const next of squashd.client.watchJob(job.id)) job = next;
    expect(job).toMatchObject({
      state: "failed",
      code: "build_failed",
      error: expect.stringMatching(/SIGKILL/) as string,
    });
    const second = await begin("240-left");
    await squashd.end("SIGKILL");
    await expect.poll(() => textOf(`/proc/${second.worker}/cmdline`)).not.toContain("build-worker");
    registry.instead = () => false;
    await squashd.start();
    expect(readdirSync(folder).filter((name) => name.includes("240-"))).toEqual([]);
  });
});
