import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { killInit } from "../support/kill-init.js";
import { hostState, settledState, type HostState } from "../support/leaks.js";
import { simulateReboot } from "../support/reboot.js";
import { TestSquashd } from "../support/squashd.js";
import { lacks } from "../support/needs.js";

const squashd = new TestSquashd();
const marks = [squashd.mark];
let before: HostState;

beforeAll(async () => {
  before = hostState(marks);
  await squashd.start();
});
afterAll(async () => {
  await squashd[Symbol.asyncDispose]();
  expect(await settledState(before, marks)).toEqual(before);
});

async function destroyAll(): Promise<void> {
  await squashd.destroyAll();
}

describe.skipIf(lacks("root"))("kill -9 of squashd", () => {
  it("leaves processes running; the next squashd adopts them and goes on counting", async () => {
    const sandbox = await squashd.client.create({ id: "adopted" });
    await sandbox.exec(
      "(i=0; while :; do i=$((i+1)); echo $i > /tmp/n; mv /tmp/n /tmp/alive; sleep 0.02; done) >/dev/null 2>&1 &",
    );
    await sandbox.exec("echo two");
    const { pid } = await sandbox.info();
    await squashd.end("SIGKILL");
    await squashd.start();
    expect(await sandbox.info()).toMatchObject({ state: "ready", pid, exec_count: 2, restarts: 0 });
    const first = (await sandbox.exec("cat /tmp/alive")).stdout;
    await new Promise((resolve) => setTimeout(resolve, 100));
    const second = await sandbox.exec("cat /tmp/alive");
    expect(Number(second.stdout)).toBeGreaterThan(Number(first));
    expect(second.seq).toBe(4);
    expect((await sandbox.logs()).map(({ seq }) => seq)).toEqual([1, 2, 3, 4]);
    await destroyAll();
  });

  it("does not make the next one take another process for an init, whose number it has by now", async () => {
    const sandbox = await squashd.client.create({ id: "recycled" });
    await sandbox.exec("echo kept > /root/file");
    const { pid } = await sandbox.info();
    await squashd.end("SIGKILL");
    const path = `${squashd.dataDir}/sandboxes/recycled/.meta/sandbox.json`;
    const record = JSON.parse(readFileSync(path, "utf8")) as { cell: { startTime: string } };
    record.cell.startTime = String(BigInt(record.cell.startTime) + 1n); // a process that was started a moment later
    writeFileSync(path, JSON.stringify(record));
    await squashd.start();
    await expect.poll(() => sandbox.info()).toMatchObject({ state: "ready", restarts: 1 });
    expect((await sandbox.info()).pid).not.toBe(pid);
    await expect.poll(() => existsSync(`/proc/${pid}`)).toBe(false); // its new parent takes a moment to notice
    expect((await sandbox.exec("cat /root/file")).stdout).toBe("kept\n");
    await sandbox.destroy();
  });

  it("does not stop a command that is under way", async () => {
    const sandbox = await squashd.client.create({ id: "busy" });
    const running = sandbox.exec("sleep 0.5; echo finished > /tmp/result").catch(() => "lost");
    await expect.poll(async () => (await sandbox.exec("ps -o comm | grep -c '^sleep'")).stdout.trim()).toBe("1");
    await squashd.end("SIGKILL");
    expect(await running).toBe("lost");
    await squashd.start();
    await expect.poll(async () => (await sandbox.exec("cat /tmp/result")).stdout).toBe("finished\n");
    await destroyAll();
  });

  it("at any moment of a creation leaves nothing half-made", async () => {
    for (let delay = 0; delay < 12; delay += 2) {
      const creating = Promise.allSettled(
        Array.from({ length: 4 }, (_, i) => squashd.client.create({ id: `half-${delay}-${i}` })),
      );
      await new Promise((resolve) => setTimeout(resolve, delay));
      await squashd.end("SIGKILL");
      await creating;
      await squashd.start();
      const infos = await squashd.client.list();
      expect(infos.every(({ state }) => state === "ready")).toBe(true);
      const directories = readdirSync(`${squashd.dataDir}/sandboxes`);
      expect(directories.toSorted()).toEqual(infos.map(({ id }) => id).toSorted());
      for (const { id } of infos) expect((await squashd.client.sandbox(id).exec("hostname")).stdout).toBe(`${id}\n`);
      await destroyAll();
    }
  });

  it("at any moment of a destruction leaves a whole sandbox or none", async () => {
    for (let delay = 0; delay < 6; delay += 2) {
      const ids = Array.from({ length: 4 }, (_, i) => `going-${delay}-${i}`);
      for (const id of ids) await squashd.client.create({ id });
      const destroying = Promise.allSettled(ids.map((id) => squashd.client.sandbox(id).destroy()));
      await new Promise((resolve) => setTimeout(resolve, delay));
      await squashd.end("SIGKILL");
      await destroying;
      await squashd.start();
      for (const { id, state } of await squashd.client.list()) {
        expect(state).toBe("ready");
        expect((await squashd.client.sandbox(id).exec("hostname")).stdout).toBe(`${id}\n`);
      }
      await destroyAll();
      expect(readdirSync(`${squashd.dataDir}/sandboxes`)).toEqual([]);
    }
  });
});

describe.skipIf(lacks("root"))("a death", () => {
  it("of sq-host is survived by squashd and by the sandboxes", async () => {
    const sandbox = await squashd.client.create({ id: "kept" });
    await squashd.killHost();
    await expect.poll(async () => (await sandbox.exec("echo yes")).stdout).toBe("yes\n");
    const other: Sandbox = await squashd.client.create({ id: "after" });
    expect((await other.exec("hostname")).stdout).toBe("after\n");
    await destroyAll();
  });

  it("of a sandbox's init leads to a rebuild on the same files", async () => {
    const sandbox = await squashd.client.create({ id: "reborn" });
    await sandbox.exec("echo kept > /root/file; chown user /root/file");
    killInit(await sandbox.info());
    await expect.poll(async () => (await sandbox.info()).restarts).toBe(1);
    await expect.poll(async () => (await sandbox.info()).state).toBe("ready");
    expect((await sandbox.exec("cat /root/file; stat -c %U /root/file; hostname")).stdout).toBe("kept\nuser\nreborn\n");
    await destroyAll();
  });
});

describe.skipIf(lacks("root"))("SIGTERM", () => {
  it("keeps the sandboxes for the next squashd", async () => {
    const sandbox = await squashd.client.create({ id: "stays" });
    await sandbox.exec("echo 1 > /tmp/x; (sleep 1000 >/dev/null 2>&1 &)");
    await squashd.end("SIGTERM");
    await squashd.start();
    expect((await sandbox.exec("cat /tmp/x; ps -o comm | grep -c '^sleep'")).stdout).toBe("1\n1\n");
    await destroyAll();
  });

  it("leaves nothing on the host when there are no sandboxes", async () => {
    await squashd.end("SIGTERM");
    expect(await settledState(before, marks)).toEqual(before);
    expect(existsSync(`${squashd.runDir}/mounts`)).toBe(false);
    await squashd.start();
  });
});

describe.skipIf(lacks("root"))("a restart of the machine", () => {
  it("loses sandboxes whose files were in memory, and says so", async () => {
    await squashd.client.create({ id: "gone", owner: "me", task: "test" });
    await simulateReboot(squashd);
    await squashd.start();
    const sandbox = squashd.client.sandbox("gone");
    expect(await sandbox.info()).toMatchObject({ state: "lost", owner: "me", task: "test", pid: null });
    await expect(sandbox.exec("true")).rejects.toMatchObject({ code: "sandbox_not_ready" });
    await squashd.client.create({ id: "gone" });
    expect((await sandbox.exec("echo new")).stdout).toBe("new\n");
    await destroyAll();
  });

  it("brings back sandboxes with the loop backend", async () => {
    await squashd.end();
    await squashd.start({ SQUASH_UPPER_BACKEND: "loop", SQUASH_UPPER_LIMIT_MB: "32" });
    const sandbox = await squashd.client.create({ id: "durable" });
    await sandbox.exec("echo kept > /root/file; chown user:extra /root/file; sync");
    await simulateReboot(squashd);
    await squashd.start();
    await expect.poll(async () => (await sandbox.info()).state).toBe("ready");
    expect((await sandbox.exec("cat /root/file; stat -c %U:%G /root/file")).stdout).toBe("kept\nuser:extra\n");
    expect((await sandbox.exec("true")).seq).toBe(3);
    await destroyAll();
    await squashd.end();
    await squashd.start({ SQUASH_UPPER_BACKEND: "tmpfs", SQUASH_UPPER_LIMIT_MB: "512" });
  });
});
