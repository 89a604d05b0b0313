import { existsSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable, Writable } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runTool, type ToolOptions } from "./run-tool.js";

let folder: string;
const common = { op: "test", target: "it", deadlineMs: 20_000 };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "squash-tool-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const shell = (script: string, options: Partial<ToolOptions> = {}) =>
  runTool(["sh", "-c", script], { ...common, ...options });

/** Waits until a condition holds. */
async function until(holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error("it did not come to pass");
    await new Promise((done) => setTimeout(done, 10));
  }
}

/** Whether a process runs; one that only waits for its parent does not. */
function isRunning(pid: string): boolean {
  if (!existsSync(`/proc/${pid}/stat`)) return false;
  return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
}

/** Process ids that a script has written to a file. */
function pidsIn(path: string): string[] {
  return existsSync(path) ? readFileSync(path, "utf8").trim().split(/\s+/).filter(Boolean) : [];
}

describe("runTool()", () => {
  it("answers what the program wrote, without a shell", async () => {
    expect(await runTool(["printf", "%s|", "a b", "$HOME;"], common)).toBe("a b|$HOME;|");
  });

  it("gives it a minimal environment, no input, and / as its directory", async () => {
    expect((await shell("env | sort; pwd; cat", { env: { EXTRA: "1" } })).split("\n")).toEqual([
      "EXTRA=1",
      "LC_ALL=C",
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      "PWD=/",
      "/",
      "",
    ]);
  });

  it("tells why it failed: status or signal, and the end of what it said", async () => {
    const noise = "i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done;";
    await expect(shell(`${noise} echo one >&2; echo two >&2; exit 3`)).rejects.toMatchObject({
      code: "build_failed",
      message: 'Cannot test "it": sh ended with status 3: line 2997 | line 2998 | line 2999 | one | two',
    });
    await expect(shell("kill -9 $$")).rejects.toMatchObject({ message: 'Cannot test "it": sh ended with SIGKILL' });
  });

  it("says which package a missing program is in", async () => {
    await expect(runTool(["no-such-program"], common)).rejects.toMatchObject({
      code: "build_failed",
      message: 'Cannot test "it": no-such-program is not installed',
    });
    const env = { PATH: folder };
    await expect(runTool(["mkfs.erofs"], { ...common, env })).rejects.toMatchObject({
      message: /mkfs.erofs is not installed; install the Debian package "erofs-utils"/,
    });
    writeFileSync(join(folder, "plain"), "x");
    await expect(runTool([join(folder, "plain")], common)).rejects.toMatchObject({
      message: /cannot be started \(.*EACCES/,
    });
  });

  it("feeds text, streams and open files", async () => {
    const text = "x".repeat(300_000);
    expect(await runTool(["cat"], { ...common, stdin: text })).toBe(text);
    expect(await runTool(["cat"], { ...common, stdin: Readable.from(["a", "b"]) })).toBe("ab");
    writeFileSync(join(folder, "in"), "from a file");
    const descriptor = openSync(join(folder, "in"), "r");
    expect(await runTool(["cat"], { ...common, stdin: descriptor })).toBe("from a file");
    closeSync(descriptor);
  });

  it("leaves it to the program whether it reads all its input", async () => {
    expect(await shell("head -c 1", { stdin: "x".repeat(1_000_000) })).toBe("x");
    await expect(shell("exit 4", { stdin: "x".repeat(1_000_000) })).rejects.toMatchObject({ message: /status 4/ });
  });

  it("ends it when its input fails", async () => {
    const broken = new PassThrough();
    setImmediate(() => broken.destroy(new Error("the disk is gone")));
    await expect(shell("cat >/dev/null; sleep 100", { stdin: broken })).rejects.toMatchObject({
      code: "build_failed",
    });
  });

  it("hands its output on instead of keeping it", async () => {
    const output = new PassThrough();
    let size = 0;
    output.on("data", (chunk: Buffer) => (size += chunk.length));
    expect(await runTool(["head", "-c", "5000000", "/dev/zero"], { ...common, stdout: output })).toBe("");
    expect(size).toBe(5_000_000);
  });
});

describe("a program that does too much", () => {
  it("is ended at its deadline, with all that it started", async () => {
    const began = Date.now();
    const script = `sleep 1000 & echo $! $$ >${folder}/pids; wait`;
    await expect(shell(script, { deadlineMs: 300 })).rejects.toMatchObject({
      code: "build_failed",
      message: 'Cannot test "it": sh did not end within 0.3 s',
    });
    expect(Date.now() - began).toBeLessThan(5_000);
    await until(() => !pidsIn(`${folder}/pids`).some(isRunning));
  });

  it("is killed when it does not want to end", async () => {
    const script = `trap "" TERM; echo $$ >${folder}/pids; while :; do sleep 0.1; done`;
    await expect(shell(script, { deadlineMs: 200 })).rejects.toMatchObject({ message: /did not end within 0.2 s/ });
    await until(() => !pidsIn(`${folder}/pids`).some(isRunning));
  });

  it("is not waited for when something that left its group holds the pipes", async () => {
    const began = Date.now();
    const script = `setsid sh -c 'echo $$ >${folder}/pids; exec sleep 30' & sleep 1000`;
    await expect(shell(script, { deadlineMs: 300 })).rejects.toMatchObject({ message: /did not end within/ });
    expect(Date.now() - began).toBeLessThan(10_000);
    for (const pid of pidsIn(`${folder}/pids`)) process.kill(Number(pid), "SIGKILL");
  });

  it("is ended when it floods its output, with all that it started", async () => {
    const script = `(trap "" TERM; exec >/dev/null 2>&1; while :; do sleep 0.1; done) & echo $! $$ >${folder}/pids; exec cat /dev/zero`;
    await expect(shell(script, { outputLimit: 100_000 })).rejects.toMatchObject({
      code: "build_failed",
      // what it was writing to is gone, of which it may have told before its end
      message: expect.stringMatching(/^Cannot test "it": output of sh: it is larger than 100000 bytes/) as string,
    });
    await until(() => pidsIn(`${folder}/pids`).length === 2 && !pidsIn(`${folder}/pids`).some(isRunning));
  });

  it("may flood its error output, of which the end is kept", async () => {
    await expect(shell("head -c 50000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1")).rejects.toMatchObject({
      message: /the end$/,
      details: { stderr: /^x{16000,16384}the end$/ },
    });
  });

  it("is ended when nobody takes its output", async () => {
    const full = new Writable({ write: (_chunk, _encoding, done) => done(new Error("the disk is full")) });
    await expect(runTool(["cat", "/dev/zero"], { ...common, stdout: full })).rejects.toMatchObject({
      // what it says of that itself may follow
      message: expect.stringMatching(/^Cannot test "it": output of cat: the disk is full/) as string,
    });
  });
});

describe("a program whose caller gives up", () => {
  it("does not begin", async () => {
    await expect(shell(`touch ${folder}/began`, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "cancelled",
    });
    expect(existsSync(`${folder}/began`)).toBe(false);
  });

  it("is ended, with all that it started", async () => {
    const giving = new AbortController();
    const running = shell(`sleep 1000 & echo $! $$ >${folder}/pids; wait`, { signal: giving.signal });
    const ended = expect(running).rejects.toMatchObject({ code: "cancelled", message: 'Cannot test "it": cancelled' });
    await until(() => pidsIn(`${folder}/pids`).length === 2);
    giving.abort();
    await ended;
    await until(() => !pidsIn(`${folder}/pids`).some(isRunning));
  });
});
