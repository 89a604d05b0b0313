import { afterEach, describe, expect, it } from "vitest";
import { patience } from "../support/patience.js";
import { useSquashd } from "../support/own-squashd.js";
import { trustByHand } from "../support/modules.js";
import { lacks } from "../support/needs.js";

const squashd = useSquashd();

afterEach(async () => {
  await squashd.destroyAll();
});

describe.skipIf(lacks("root"))("a sandbox", () => {
  it("runs commands and tells stdout, stderr and status apart", async () => {
    const sandbox = await squashd.client.create({ id: "a" });
    expect(await sandbox.exec("echo out; echo err >&2; exit 3")).toMatchObject({
      seq: 1,
      exit_code: 3,
      stdout: "out\n",
      stderr: "err\n",
      timed_out: false,
    });
    expect(await sandbox.exec(["printf", "%s|", "a b", "$HOME"])).toMatchObject({ seq: 2, stdout: "a b|$HOME|" });
  });

  it("has its id as host name, a clean environment, and root's home", async () => {
    const sandbox = await squashd.client.create({ id: "named" });
    const { stdout } = await sandbox.exec("hostname; cat /etc/hostname; env | sort; pwd");
    expect(stdout).toBe(
      [
        "named",
        "named",
        "HOME=/root",
        "LANG=C.UTF-8",
        "LOGNAME=root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PWD=/",
        "SHLVL=1",
        "TERM=xterm",
        "USER=root",
        "/",
        "",
      ].join("\n"),
    );
  });

  it("takes stdin, environment, working directory and user from the request", async () => {
    const sandbox = await squashd.client.create();
    expect((await sandbox.exec("cat", { stdin: "x".repeat(300_000) + "end" })).stdout.length).toBe(65_536);
    expect((await sandbox.exec("wc -c", { stdin: "x".repeat(1_000_000) })).stdout.trim()).toBe("1000000");
    expect((await sandbox.exec("echo $A; pwd", { env: { A: "1 $x" }, workdir: "/tmp" })).stdout).toBe("1 $x\n/tmp\n");
    expect((await sandbox.exec("id -u; id -g; id -G; echo $HOME $USER", { user: "user" })).stdout).toBe(
      "1000\n1000\n1000 2000\n/home/user user\n",
    );
    expect((await sandbox.exec("id -u", { user: 4242 })).stdout).toBe("4242\n");
  });

  it("says what could not be set up: 125 for user and directory, 126 not executable, 127 not found", async () => {
    const sandbox = await squashd.client.create();
    expect(await sandbox.exec("true", { user: "nobody-here" })).toMatchObject({
      exit_code: 125,
      stderr: /find user "nobody-here"/,
    });
    expect(await sandbox.exec("true", { workdir: "/missing" })).toMatchObject({
      exit_code: 125,
      stderr: /enter directory "\/missing"/,
    });
    expect(await sandbox.exec(["/etc/passwd"])).toMatchObject({ exit_code: 126 });
    expect(await sandbox.exec(["no-such-program"])).toMatchObject({ exit_code: 127, stderr: /run "no-such-program"/ });
    expect(await sandbox.exec("kill -9 $$")).toMatchObject({ exit_code: 137, oom_killed: false });
  });

  it("reads the login scripts of its layers, for shell texts and for programs", async () => {
    const sandbox = await squashd.client.create({ layers: ["000-base-test", "100-extra"] });
    expect((await sandbox.exec("echo $EXTRA")).stdout).toBe("from profile.d\n");
    expect((await sandbox.exec(["extra-tool", "a b"])).stdout).toBe("tool a b\n");
    expect((await sandbox.exec("cat /opt/extra/file")).stdout).toBe("from the extra layer\n");
    expect((await sandbox.info()).layers).toEqual(["100-extra", "000-base-test"]);
  });

  it("keeps 64 KiB of each output and drains the rest", async () => {
    const sandbox = await squashd.client.create();
    const result = await sandbox.exec(
      "head -c 300000 /dev/zero | tr '\\0' a; head -c 70000 /dev/zero | tr '\\0' b >&2; echo done > /tmp/done",
    );
    expect(result).toMatchObject({ exit_code: 0, stdout_truncated: true, stderr_truncated: true });
    expect(result.stdout).toBe("a".repeat(65_536));
    expect(result.stderr).toBe("b".repeat(65_536));
    expect((await sandbox.exec("cat /tmp/done")).stdout).toBe("done\n");
  });

  it("kills the whole tree of a command that takes too long", async () => {
    const sandbox = await squashd.client.create();
    const detached =
      "(setsid sh -c 'trap \"\" TERM HUP INT; exec >/dev/null 2>&1; while :; do sleep 0.01; done' &) ; sleep 100";
    const result = await sandbox.exec(detached, { timeout: 1 });
    expect(result).toMatchObject({ exit_code: 124, timed_out: true });
    expect((await sandbox.exec("ps -o comm | grep -c sleep")).stdout.trim()).toBe("0");
  });

  it("kills the whole tree when the client goes away", async () => {
    const sandbox = await squashd.client.create();
    const abort = new AbortController();
    const running = sandbox.exec("(setsid sleep 1000 &); sleep 1000", { signal: abort.signal }).catch(() => "aborted");
    await expect.poll(async () => (await sandbox.exec("ps -o comm | grep -c '^sleep'")).stdout.trim()).toBe("2");
    abort.abort();
    expect(await running).toBe("aborted");
    await expect.poll(async () => (await sandbox.exec("ps -o comm | grep -c '^sleep'")).stdout.trim()).toBe("0");
  });

  it("does not wait for a background process that keeps the output open, and lets it live", async () => {
    const sandbox = await squashd.client.create();
    const start = Date.now();
    expect(await sandbox.exec("(while :; do echo tick; sleep 0.05; done) & echo started")).toMatchObject({
      exit_code: 0,
    });
    expect(Date.now() - start).toBeLessThan(2_000);
    await new Promise((resolve) => setTimeout(resolve, 300));
    // between two sleeps there is a moment without one
    await expect.poll(async () => (await sandbox.exec("ps -o comm | grep -c '^sleep'")).stdout.trim()).toBe("1");
  });

  it("does not keep zombies", async () => {
    const sandbox = await squashd.client.create();
    await sandbox.exec("for i in 1 2 3 4 5; do (setsid sh -c 'sleep 0.05' &) ; done");
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect((await sandbox.exec("ps -o stat | grep -c Z")).stdout.trim()).toBe("0");
  });

  it("reports an out-of-memory kill and goes on", async () => {
    const sandbox = await squashd.client.create({ memory_mb: 32 });
    const result = await sandbox.exec(["sh", "-c", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo no"]);
    expect(result).toMatchObject({ exit_code: 137, oom_killed: true });
    expect((await sandbox.exec("echo fine")).stdout).toBe("fine\n");
    expect((await sandbox.info()).oom_kills).toBeGreaterThan(0);
  });

  it("says ENOSPC when its upper is full, and nothing else suffers", async () => {
    await squashd.end();
    await squashd.start({ SQUASH_UPPER_LIMIT_MB: "16" });
    const sandbox = await squashd.client.create();
    const { stderr } = await sandbox.exec("dd if=/dev/zero of=/big bs=1M count=64");
    expect(stderr).toContain("No space left on device");
    expect((await sandbox.exec("rm /big; echo ok > /x; cat /x")).stdout).toBe("ok\n");
    expect((await sandbox.info()).upper_limit_bytes).toBe(16 * 1_048_576);
  });

  it("logs every command, in order", async () => {
    const sandbox = await squashd.client.create();
    for (const text of ["one", "two", "three"]) await sandbox.exec(`echo ${text}`);
    expect((await sandbox.logs()).map(({ seq, cmd, stdout }) => [seq, cmd, stdout])).toEqual([
      [1, "echo one", "one\n"],
      [2, "echo two", "two\n"],
      [3, "echo three", "three\n"],
    ]);
  });
});

describe.skipIf(lacks("root"))("many at once", () => {
  it("runs 100 commands in one sandbox", async () => {
    const sandbox = await squashd.client.create();
    const results = await Promise.all(Array.from({ length: 100 }, (_, i) => sandbox.exec(`sleep 0.05; echo ${i}`)));
    expect(results.map(({ stdout }) => stdout)).toEqual(Array.from({ length: 100 }, (_, i) => `${i}\n`));
    expect(new Set(results.map(({ seq }) => seq)).size).toBe(100);
  });

  // an emulated machine is so slow that a hundred would take longer than sq-host waits for a cell
  const crowd = patience > 1 ? 30 : 100;

  it(`creates ${crowd} sandboxes at once and runs a command in each`, async () => {
    const ids = Array.from({ length: crowd }, (_, i) => `many-${i}`);
    const outputs = await Promise.all(
      ids.map(async (id) => (await (await squashd.client.create({ id })).exec("hostname")).stdout),
    );
    expect(outputs).toEqual(ids.map((id) => `${id}\n`));
    await Promise.all(ids.map((id) => squashd.client.sandbox(id).destroy()));
    expect(await squashd.client.list()).toEqual([]);
  });
});

describe.skipIf(lacks("root"))("create()", () => {
  it("refuses a damaged and a truncated image with a clear error", async () => {
    const { truncateSync, copyFileSync, writeFileSync, rmSync } = await import("node:fs");
    const folder = `${squashd.dataDir}/modules`;
    copyFileSync(`${folder}/000-base-test.squashfs`, `${folder}/300-cut.squashfs`);
    truncateSync(`${folder}/300-cut.squashfs`, 8192);
    writeFileSync(`${folder}/300-junk.squashfs`, Buffer.alloc(20_000, "junk"));
    writeFileSync(`${folder}/300-empty.squashfs`, "");
    try {
      for (const name of ["300-cut", "300-junk", "300-empty"]) {
        trustByHand(folder, name);
        await expect(squashd.client.create({ layers: ["000-base-test", name] })).rejects.toMatchObject({
          code: "module_invalid",
          message: /its image is damaged, truncated, or/,
        });
      }
      expect(await squashd.client.list()).toEqual([]);
    } finally {
      for (const name of ["300-cut", "300-junk", "300-empty"])
        for (const kind of ["squashfs", "manifest.json"]) rmSync(`${folder}/${name}.${kind}`);
    }
  });

  it("refuses a name that exists, and a module that does not", async () => {
    await squashd.client.create({ id: "twice" });
    await expect(squashd.client.create({ id: "twice" })).rejects.toMatchObject({ code: "sandbox_exists" });
    await expect(squashd.client.create({ layers: ["999-nope"] })).rejects.toMatchObject({ code: "module_not_found" });
  });

  it("destroys a sandbox whose lifetime is over", async () => {
    await squashd.client.create({ id: "short", max_lifetime_s: 1 });
    await expect.poll(() => squashd.client.list(), { timeout: 10_000 }).toEqual([]);
  });

  it("runs from the loop backend, with ENOSPC at its limit", async () => {
    await squashd.end();
    await squashd.start({ SQUASH_UPPER_BACKEND: "loop", SQUASH_UPPER_LIMIT_MB: "32" });
    const sandbox = await squashd.client.create();
    expect((await sandbox.exec("dd if=/dev/zero of=/big bs=1M count=64; ls -la / >/dev/null")).stderr).toContain(
      "No space left",
    );
    await sandbox.destroy();
    await squashd.end();
    await squashd.start({ SQUASH_UPPER_BACKEND: "tmpfs" });
  });
});
