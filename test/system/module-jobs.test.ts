import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JobInfo, JobRequest } from "@squash/sdk";
import type { Ended } from "../support/commands.js";
import { hostState, settledState, type HostState } from "../support/leaks.js";
import { lacks } from "../support/needs.js";
import { compress, FileServer, makeRootfs, sha256Of } from "../support/rootfs.js";
import { TestSquashd } from "../support/squashd.js";

const home = mkdtempSync(join(tmpdir(), "squash-jobs-"));
const trees = join(home, "trees");
// in the namespace of this process, so that its builders reach the test's web server
const squashd = new TestSquashd({ here: true, env: { SQUASH_BUILD_DIRS: trees, SQUASH_SUBNET: "none" } });
const folder = join(squashd.dataDir, "modules");
const server = new FileServer();
let before: HostState;

beforeAll(async () => {
  before = hostState([squashd.mark]);
  mkdirSync(join(trees, "tools/opt"), { recursive: true });
  writeFileSync(join(trees, "tools/opt/tool"), "a tool\n");
  await server.start();
  await squashd.start();
});
afterAll(async () => {
  await squashd[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  expect(await settledState(before, [squashd.mark])).toEqual(before);
  rmSync(home, { recursive: true, force: true });
});

const sq = (...args: string[]): Promise<Ended> => squashd.sq(...args);
const filesOf = (name: string): string[] =>
  readdirSync(folder)
    .filter((file) => file.includes(name))
    .toSorted();
const whole = (name: string): string[] => [`${name}.erofs`, `${name}.manifest.json`, `${name}.squashfs`];
const leftovers = (): string[] => [
  ...readdirSync(join(squashd.dataDir, "cache")).filter((name) => !/^(verified\.json|upper-template)/.test(name)),
  ...readdirSync(folder).filter((name) => name.startsWith(".")),
];

/** Follows a job to its end. */
async function endOf(request: JobRequest | JobInfo): Promise<JobInfo> {
  let job = "id" in request ? request : await squashd.client.startJob(request);
  for await (const next of squashd.client.watchJob(job.id)) job = next;
  return job;
}

async function inSandbox(layers: readonly string[], command: string): Promise<string> {
  await using sandbox = await squashd.client.create({ layers: [...layers] });
  const { stdout, stderr, exit_code: status } = await sandbox.exec(command);
  expect([stderr, status]).toEqual(["", 0]);
  return stdout;
}

describe.skipIf(lacks("root"))("a job", () => {
  it("makes a base of the host's BusyBox, and tells what it does", async () => {
    const job = await endOf({ kind: "mkbase", base: "busybox" });
    expect(job).toMatchObject({ state: "done", module: "000-base-busybox", fraction: 1, error: null });
    expect(job.lines.join("\n")).toMatch(/packing .*busybox/);
    expect(filesOf("000-base-busybox")).toEqual(whole("000-base-busybox"));
    expect(await inSandbox(["000-base-busybox"], "echo yes")).toBe("yes\n");
    await expect(squashd.client.startJob({ kind: "mkbase", base: "busybox" })).rejects.toMatchObject({
      code: "module_exists",
    });
  });

  it("makes a module of a tar file that is sent, packed or not, with owners and times", async () => {
    const tar = join(home, "rootfs.tar.gz");
    writeFileSync(tar, compress("gzip", await makeRootfs()));
    const made = await sq("mkmod", "from-tar", tar, "000-sent", "--conflicts", "100-rival");
    expect(made).toMatchObject({ status: 0, stdout: "000-sent\n", stderr: /packing it …\n/ });
    expect(filesOf("000-sent")).toEqual(whole("000-sent"));
    expect(await squashd.client.module("000-sent")).toMatchObject({ format: "erofs", conflicts: ["100-rival"] });
    const script = "stat -c '%a %u:%g %h %Y' /etc/marker /bin/hardlink /usr/bin/setuid; ls /var; stat -c %F /run/pipe";
    expect(await inSandbox(["000-sent"], script)).toBe(
      "640 12:34 1 1706933106\n755 0:0 2 1706933106\n4755 0:0 1 1706933106\ntmp\nünïcödé name\nfifo\n",
    );
    expect(leftovers()).toEqual([]);
  });

  it("makes a module of a tar file on a server, or says what is wrong with it", async () => {
    const [, url = ""] = server.serve("tree", await makeRootfs());
    const sha256 = sha256Of(await makeRootfs());
    expect(await endOf({ kind: "from-tar", name: "000-fetched", url, sha256 })).toMatchObject({ state: "done" });
    expect(await inSandbox(["000-fetched"], "cat /etc/marker")).toBe("from the tar file\n");
    const wrong = await sq("mkmod", "from-tar", url, "000-wrong", "--sha256", "0".repeat(64));
    expect(wrong).toMatchObject({ status: 1, stdout: "", stderr: /its sha256 is/ });
    const climbing = sha256Of(await makeRootfs([{ name: "../out", content: "x" }]));
    const [, other = ""] = server.serve("climbing", await makeRootfs([{ name: "../out", content: "x" }]));
    expect(await endOf({ kind: "from-tar", name: "000-wrong", url: other, sha256: climbing })).toMatchObject({
      state: "failed",
      code: "build_failed",
      error: /path with "\.\."/,
    });
    expect(filesOf("000-wrong")).toEqual([]);
    expect(leftovers()).toEqual([]);
  });

  it("makes a module of a directory that the operator opened, and of no other", async () => {
    expect(await sq("mkmod", "from-dir", join(trees, "tools"), "100-tools")).toMatchObject({
      status: 0,
      stdout: "100-tools\n",
    });
    expect(await inSandbox(["000-base-test", "100-tools"], "cat /opt/tool")).toBe("a tool\n");
    symlinkSync("/etc", join(trees, "link"));
    mkdirSync(`${trees}-other`);
    for (const path of [
      "/etc",
      join(trees, "link"),
      `${trees}/../trees-other`,
      `${trees}-other`,
      join(trees, "absent"),
    ]) {
      await expect(squashd.client.startJob({ kind: "from-dir", path, name: "100-x" })).rejects.toMatchObject({
        code: "invalid_request",
        message: /no directory below one of SQUASH_BUILD_DIRS/,
      });
    }
    const user = await squashd.client.create({ layers: ["000-base-test", "100-tools"] });
    const again: JobRequest = { kind: "from-dir", path: join(trees, "tools"), name: "100-tools", replace: true };
    expect(await endOf(again)).toMatchObject({ state: "failed", code: "module_in_use" });
    await user.destroy();
    expect(await endOf(again)).toMatchObject({ state: "done" });
  });

  it("that is cancelled ends at once and leaves nothing, by Ctrl-C too", async () => {
    const [, url = ""] = server.serve("endless", null);
    const request: JobRequest = { kind: "from-tar", name: "100-endless", url, sha256: "0".repeat(64) };
    const job = await squashd.client.startJob(request);
    await expect.poll(() => server.wasAskedFor("endless")).toBe(true);
    await squashd.client.removeJob(job.id);
    expect(await squashd.client.job(job.id)).toMatchObject({ state: "cancelled", code: "cancelled" });
    await squashd.client.removeJob(job.id);
    await expect(squashd.client.job(job.id)).rejects.toMatchObject({ code: "job_not_found" });
    const running = squashd.startSq("mkmod", "from-tar", url, "100-endless", "--sha256", "0".repeat(64));
    await expect.poll(() => running.said()).toMatch(/downloading/);
    running.child.kill("SIGINT");
    expect(await running.ended).toMatchObject({ status: 130 });
    expect((await squashd.client.jobs())[0]).toMatchObject({ module: "100-endless", state: "cancelled" });
    expect(filesOf("100-endless")).toEqual([]);
    expect(leftovers()).toEqual([]);
  });

  it("is cancelled by a shutdown, and swept after a kill", async () => {
    const [, url = ""] = server.serve("long", null);
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      await squashd.client.startJob({ kind: "from-tar", name: "100-long", url, sha256: "0".repeat(64) });
      await expect.poll(leftovers).toHaveLength(1);
      await squashd.end(signal);
      if (signal === "SIGTERM") expect(leftovers()).toEqual([]);
      await squashd.start();
      expect(leftovers()).toEqual([]);
      expect(await squashd.client.jobs()).toEqual([]);
    }
  });

  it("tells its states as server-sent events", async () => {
    const { id } = await squashd.client.startJob({ kind: "mkbase", base: "busybox", name: "000-events" });
    const text = await new Promise<string>((settle, reject) => {
      const options = { socketPath: join(squashd.home, "api.sock"), path: `/v1/jobs/${id}/events` };
      request(options, (response) => {
        expect(response.headers["content-type"]).toBe("text/event-stream; charset=utf-8");
        let all = "";
        response.on("data", (chunk: Buffer) => (all += chunk.toString())).on("end", () => settle(all));
      })
        .on("error", reject)
        .end();
    });
    expect(text).toMatch(/^event: progress\ndata: \{.*\}\n\n/);
    expect(text).toMatch(/event: done\ndata: \{.*"state":"done".*\}\n\n$/);
  });
});

describe.skipIf(lacks("root"))("the other image of a module", () => {
  /** A squashfs image with owners, a capability, a device, and marks of removed files. */
  function pack(name: string, fill: (root: string) => void): string {
    const root = mkdtempSync(join(home, "root-"));
    mkdirSync(join(root, "opt"));
    fill(root);
    const image = join(home, `${name}.squashfs`);
    execFileSync("mksquashfs", [root, image, "-noappend", "-quiet", "-no-progress"], { stdio: "ignore" });
    return image;
  }

  it("is made in the background of what is sent, by tools that are nobody, and has the same files", async () => {
    const image = pack("100-twin", (root) => {
      const run = (command: string): void => void execFileSync("sh", ["-ec", command], { cwd: join(root, "opt") });
      run("echo file >owned; chown 12:34 owned; chmod 4755 owned; ln owned hard; ln -s owned soft; mkfifo pipe");
      run("cp /bin/busybox capable; setcap cap_net_raw+ep capable; touch -d 2001-02-03T04:05:06Z owned");
      run("mknod null c 1 3; mknod ../home c 0 0");
      writeFileSync(join(root, "opt/spaced name"), "x");
    });
    expect(await sq("module", "push", image)).toMatchObject({ status: 0 });
    const [job] = await squashd.client.jobs();
    expect(job).toMatchObject({ kind: "convert", module: "100-twin" });
    expect(await endOf(job!)).toMatchObject({ state: "done", error: null });
    expect(filesOf("100-twin")).toEqual(whole("100-twin"));
    expect(await squashd.client.module("100-twin")).toMatchObject({
      format: "erofs",
      formats: ["squashfs", "erofs"],
      problem: null,
    });
    const script =
      "cd /opt; stat -c '%n %F %a %u:%g %h %Y' owned hard soft pipe; ls; cat 'spaced name'; test -e /home || echo hidden";
    const made = await inSandbox(["000-base-test", "100-twin"], script);
    rmSync(join(folder, "100-twin.erofs"));
    expect(await squashd.client.module("100-twin")).toMatchObject({ format: "squashfs" });
    expect(made.replace(/^null\n/m, "")).toBe(
      (await inSandbox(["000-base-test", "100-twin"], script)).replace(/^null\n/m, ""),
    );
    expect(made).toMatch(/hidden\n$/);
    expect(made).toContain("owned regular file 4755 12:34 2 981173106\n");
    expect(await sq("module", "convert", "100-twin", "erofs")).toMatchObject({ status: 0, stdout: "100-twin\n" });
    const erofs = join(folder, "100-twin.erofs");
    const dump = (path: string): string =>
      execFileSync("dump.erofs", [`--path=${path}`, erofs], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    expect(dump("/home")).toMatch(/char dev/);
    expect(dump("/opt/capable")).not.toMatch(/Xattr size: 0$/m);
    expect(dump("/opt/null")).not.toMatch(/char dev/);
    expect(leftovers()).toEqual([]);
  });

  it("does not take the place of the quicker one when it is made of that", async () => {
    const job: JobRequest = { kind: "from-dir", path: join(trees, "tools"), name: "100-quick", formats: ["erofs"] };
    expect(await endOf(job)).toMatchObject({ state: "done", error: null });
    expect(await endOf({ kind: "convert", name: "100-quick", format: "squashfs" })).toMatchObject({ state: "done" });
    expect(await squashd.client.module("100-quick")).toMatchObject({ format: "erofs", formats: ["squashfs", "erofs"] });
    expect(await inSandbox(["000-base-test", "100-quick"], "cat /opt/tool")).toBe("a tool\n");
  });

  it("is not made of an image that is not trusted, damaged, or where it is there already", async () => {
    const image = readFileSync(
      pack("100-odd", (root) => writeFileSync(join(root, "opt/x"), Buffer.alloc(100_000, "x"))),
    );
    writeFileSync(join(folder, "100-odd.squashfs"), image);
    const convert: JobRequest = { kind: "convert", name: "100-odd", format: "erofs" };
    expect(await endOf(convert)).toMatchObject({ state: "failed", code: "module_invalid" });
    image.fill(255, 96, 300);
    writeFileSync(join(folder, "100-odd.squashfs"), image);
    await squashd.client.trustModule("100-odd");
    expect(await endOf(convert)).toMatchObject({ state: "failed", code: "build_failed", error: /unsquash/ });
    expect(filesOf("100-odd")).toEqual(["100-odd.manifest.json", "100-odd.squashfs"]);
    for (const format of ["erofs", "squashfs"] as const) {
      const again: JobRequest = { kind: "convert", name: "000-base-busybox", format };
      expect(await endOf(again)).toMatchObject({ state: "failed", code: "module_exists" });
    }
    expect(leftovers()).toEqual([]);
  });
});
