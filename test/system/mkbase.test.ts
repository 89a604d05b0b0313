import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { commandLines, runCommand, startCommand, type Ended } from "../support/commands.js";
import { lacks } from "../support/needs.js";
import { compress, FileServer, makeRootfs } from "../support/rootfs.js";
import { TestSquashd } from "../support/squashd.js";

const squashd = new TestSquashd();
const modules = join(squashd.dataDir, "modules");
const home = mkdtempSync(join(tmpdir(), "squash-mkbase-"));
const server = new FileServer();
let rootfs: Buffer;

/** Data directory of its own for what is built twice or fails. */
const otherData = (name: string): string => join(home, name);
const settings = (dataDir: string): Record<string, string> => ({ SQUASH_DATA_DIR: dataDir, SQUASH_LOG_LEVEL: "warn" });
const mkbase = (args: readonly string[], dataDir = squashd.dataDir, program: keyof typeof commandLines = "squashd") =>
  runCommand(program, ["mkbase", ...args], settings(dataDir));

beforeAll(async () => {
  rootfs = await makeRootfs();
  await server.start();
  await squashd.start();
});
afterAll(async () => {
  await squashd[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  rmSync(home, { recursive: true, force: true });
});

/** What was built must be there, with nothing beside it. */
function expectDone(ended: Ended, name: string, dataDir = squashd.dataDir): void {
  if (ended.status !== 0) throw new Error(`mkbase ended with status ${ended.status}: ${ended.stderr}`);
  expect(ended.stdout).toMatch(new RegExp(`^${name}  squashfs [\\d.]+ MiB, erofs [\\d.]+ MiB  in [\\d.]+ s\n$`));
  expect(leftovers(dataDir)).toEqual([]);
  expect(filesOf(name, dataDir)).toEqual([`${name}.erofs`, `${name}.manifest.json`, `${name}.squashfs`]);
}

function leftovers(dataDir: string): string[] {
  const names = (folder: string): string[] =>
    existsSync(join(dataDir, folder)) ? readdirSync(join(dataDir, folder)) : [];
  return [
    ...names("cache").filter((name) => name.startsWith("mkbase-")),
    ...names("modules").filter((name) => name.startsWith(".") || name.includes(".tmp-")),
  ];
}

function filesOf(name: string, dataDir: string): string[] {
  return readdirSync(join(dataDir, "modules"))
    .filter((file) => file.startsWith(`${name}.`))
    .toSorted();
}

function hashes(name: string, dataDir = squashd.dataDir): unknown {
  const manifest = JSON.parse(readFileSync(join(dataDir, "modules", `${name}.manifest.json`), "utf8")) as {
    files: unknown;
  };
  return manifest.files;
}

/** Runs a command in a new sandbox of one base. */
async function inSandbox(layer: string, command: string | string[]): Promise<string> {
  await using sandbox = await squashd.client.create({ layers: [layer] });
  const { stdout, stderr, exit_code: status } = await sandbox.exec(command);
  expect([stderr, status]).toEqual(["", 0]);
  return stdout;
}

/** Waits until a condition holds. */
async function until(holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error("it did not come to pass");
    await new Promise((done) => setTimeout(done, 5));
  }
}

/** Programs that work on a directory. */
function workersOn(path: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      } catch {
        return ""; // it has ended
      }
    })
    .filter((line) => line.includes(path));
}

describe.skipIf(lacks("root"))("mkbase busybox", () => {
  it("makes a base, of which a running squashd makes sandboxes", async () => {
    expectDone(await mkbase(["busybox"]), "000-base-busybox");
    const script =
      "cat /etc/os-release | head -n 1; id -u; readlink /bin/sh; stat -c '%a %u:%g' /tmp /root /bin/busybox";
    expect(await inSandbox("000-base-busybox", script)).toMatch(
      /^ID=busybox\n0\n.*busybox\n1777 0:0\n700 0:0\n755 0:0\n$/,
    );
  });

  it("is the same through sq, and gives the same bytes again", async () => {
    const dataDir = otherData("busybox");
    expectDone(await mkbase(["busybox"], dataDir, "sq"), "000-base-busybox", dataDir);
    expect(hashes("000-base-busybox", dataDir)).toEqual(hashes("000-base-busybox"));
    expect(await mkbase(["list"], dataDir, "sq")).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^000-base-busybox {2}erofs [\d.]+ MiB\n$/) as string,
    });
  });

  it.each(["squashfs", "erofs"])("makes only %s when asked, and sandboxes of it", async (format) => {
    const name = `000-only-${format}`;
    expect(await mkbase(["busybox", "--name", name, "--format", format])).toMatchObject({ status: 0 });
    expect(filesOf(name, squashd.dataDir)).toEqual([`${name}.${format}`, `${name}.manifest.json`].toSorted());
    expect(await inSandbox(name, "echo yes")).toBe("yes\n");
  });
});

describe.skipIf(lacks("root"))("mkbase from-dir", () => {
  const tree = join(home, "tree");

  beforeAll(() => {
    mkdirSync(tree);
    execFileSync("tar", ["-x", "-C", tree, "--numeric-owner", "-f", "-"], { input: rootfs });
  });

  it("packs what a directory holds, without devices and sockets", async () => {
    expectDone(await mkbase(["from-dir", tree, "mine"]), "000-mine");
    const script = `cat /etc/marker; stat -c '%a %u:%g %h' /etc/marker /bin/hardlink /usr/bin/setuid; readlink /etc/mtab; ls /var; stat -c %F /run/pipe`;
    expect(await inSandbox("000-mine", script)).toBe(
      "from the tar file\n640 12:34 1\n755 0:0 2\n4755 0:0 1\n../proc/mounts\ntmp\nünïcödé name\nfifo\n",
    );
    const image = join(modules, "000-mine.squashfs");
    expect(execFileSync("unsquashfs", ["-l", image], { encoding: "utf8" })).not.toMatch(/dev\/(null|sda)/);
  });

  it("gives the same bytes for the same tree, also for a copy of it", async () => {
    const dataDir = otherData("again");
    const copy = join(home, "copy");
    execFileSync("cp", ["-a", tree, copy]);
    expectDone(await mkbase(["from-dir", copy, "--name", "mine"], dataDir, "sq"), "000-mine", dataDir);
    expect(hashes("000-mine", dataDir)).toEqual(hashes("000-mine"));
  });

  it("replaces a base only by force, under sandboxes that run", async () => {
    await using old = await squashd.client.create({ layers: ["000-mine"] });
    writeFileSync(join(tree, "etc/marker"), "another\n");
    expect(await mkbase(["from-dir", tree, "mine"])).toMatchObject({
      status: 1,
      stderr: /exists, --force replaces it/,
    });
    expect(await inSandbox("000-mine", "cat /etc/marker")).toBe("from the tar file\n");
    expectDone(await mkbase(["from-dir", tree, "mine", "--force"]), "000-mine");
    expect(await inSandbox("000-mine", "cat /etc/marker")).toBe("another\n");
    expect((await old.exec("cat /etc/marker")).stdout).toBe("from the tar file\n");
  });

  it("needs no data directory beforehand", async () => {
    const dataDir = otherData("deep/absent");
    expectDone(await mkbase(["from-dir", tree, "mine"], dataDir), "000-mine", dataDir);
  });
});

describe.skipIf(lacks("root"))("mkbase of a distribution", () => {
  it.each([
    ["alpine", "gzip"],
    ["ubuntu", "xz"],
    ["void", "zstd"],
    ["alpine", "plain"],
  ] as const)("takes the root file system of %s packed by %s", async (kind, packed) => {
    const name = `000-${kind}-${packed}`;
    const file = packed === "plain" ? rootfs : compress(packed, rootfs);
    expectDone(await mkbase([kind, "--name", name, ...server.serve(name, file)]), name);
    const script = `cat /etc/marker; stat -c '%a %u:%g %h %Y' /etc/marker /bin/hardlink /usr/bin/setuid; ls /var; stat -c %F /run/pipe`;
    expect(await inSandbox(name, script)).toBe(
      ["640 12:34 1", "755 0:0 2", "4755 0:0 1"].reduce(
        (text, line) => `${text}${line} 1706933106\n`,
        "from the tar file\n",
      ) + "tmp\nünïcödé name\nfifo\n",
    );
    const image = join(modules, `${name}.squashfs`);
    expect(execFileSync("unsquashfs", ["-l", image], { encoding: "utf8" })).not.toMatch(/dev\/(null|sda)/);
  });

  it("gives the same bytes however it was packed, also through sq", async () => {
    const [one, other] = [otherData("one"), otherData("other")];
    expectDone(await mkbase(["void", ...server.serve("a", rootfs)], one, "sq"), "000-base-void", one);
    expectDone(await mkbase(["void", ...server.serve("b", compress("xz", rootfs))], other), "000-base-void", other);
    expect(hashes("000-base-void", other)).toEqual(hashes("000-base-void", one));
  });

  it("gives the root directory to its owner alone, with the time of the tar file", async () => {
    expectDone(await mkbase(["void", "--name", "000-root", ...server.serve("root", rootfs)]), "000-root");
    expect(await inSandbox("000-root", "stat -c '%a %u:%g' /; stat -c '%a %Y' /usr")).toBe("755 0:0\n755 1706933106\n");
  });

  it("is the default base of sandboxes when it is alpine", async () => {
    expectDone(await mkbase(["alpine", ...server.serve("alpine", rootfs)]), "000-base-alpine");
    await using sandbox = await squashd.client.create();
    expect((await sandbox.exec("cat /etc/marker")).stdout).toBe("from the tar file\n");
    expect((await squashd.client.sandbox(sandbox.id).info()).layers).toEqual(["000-base-alpine"]);
  });

  it.each([
    ["another file", () => rootfs, ["--sha256", "0".repeat(64)], /its sha256 is [0-9a-f]{64}, needed is 0{64}/],
    ["a page", () => Buffer.from("<!doctype html>".padEnd(3_000)), [], /damaged or no tar file/],
    ["half a file", () => compress("gzip", rootfs).subarray(0, 200_000), [], /gzip ended with status 1/],
    ["half a tar file", () => rootfs.subarray(0, 512 * 40), [], /damaged or no tar file/],
    ["a file that climbs out", () => makeRootfs([{ name: "../../../tmp/out", content: "x" }]), [], /path with "\.\."/],
    [
      "a link to outside",
      () => makeRootfs([{ name: "x", type: "link", linkname: "/etc/shadow" }]),
      [],
      /absolute path/,
    ],
    ["nothing", () => Buffer.alloc(0), [], /no entries/],
  ] as const)("refuses %s and leaves nothing", async (what, file, more, message) => {
    const dataDir = otherData("refused");
    const ended = await mkbase(["ubuntu", ...server.serve(encodeURIComponent(what), await file()), ...more], dataDir);
    expect(ended).toMatchObject({ status: 1, stdout: "", stderr: message });
    expect(ended.stderr).not.toMatch(/ {4}at /);
    expect(leftovers(dataDir)).toEqual([]);
    expect(existsSync(join(dataDir, "modules")) ? readdirSync(join(dataDir, "modules")) : []).toEqual([]);
  });
});

describe.skipIf(lacks("root"))("an interruption", () => {
  it.each([
    ["squashd", "SIGINT", 1, /interrupted, nothing was made/],
    ["squashd", "SIGTERM", 1, /interrupted, nothing was made/],
    ["sq", "SIGINT", 130, /interrupted, nothing was made/],
    ["sq", "SIGTERM", 143, /interrupted, nothing was made/],
  ] as const)("of a download: %s ends at %s and leaves nothing", async (program, signal, status, message) => {
    const dataDir = otherData(`stop-${program}-${signal}`);
    const file = `endless-${program}-${signal}`;
    const running = startCommand(program, ["mkbase", "alpine", ...server.serve(file, null)], settings(dataDir));
    await until(() => server.wasAskedFor(file) && leftovers(dataDir).length > 0);
    running.child.kill(signal);
    expect(await running.ended).toMatchObject({ status, stdout: "", stderr: message });
    expect(leftovers(dataDir)).toEqual([]);
    expect(workersOn(dataDir)).toEqual([]);
  });

  it.each(["squashd", "sq"] as const)("of the packing: %s ends it and leaves nothing", async (program) => {
    const dataDir = otherData(`pack-${program}`);
    const tree = join(home, `large-${program}`);
    mkdirSync(tree);
    for (let index = 0; index < 16; index++) writeFileSync(join(tree, `${index}`), randomBytes(16 * 1_048_576));
    const running = startCommand(program, ["mkbase", "from-dir", tree, "large"], settings(dataDir));
    await until(() => leftovers(dataDir).length > 0);
    running.child.kill("SIGTERM");
    expect(await running.ended).toMatchObject({ status: program === "sq" ? 143 : 1, stdout: "" });
    expect(leftovers(dataDir)).toEqual([]);
    expect(filesOf("000-large", dataDir)).toEqual([]);
    expect(workersOn(dataDir)).toEqual([]);
    rmSync(tree, { recursive: true });
  });
});
