import { renameSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { isSquashError, type CreateOptions, type Sandbox } from "@squash/sdk";
import { filesInside } from "../../support/file-limit.js";
import { attack, control, createTarget } from "../../support/probe.js";
import { lacks } from "../../support/needs.js";
import { expectHealthy, useTarget } from "../../support/target.js";

const target = useTarget();
const [processLimit, fileLimit] = [6, 7];
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

/** Attacks from a sandbox of its own; squashd and the neighbour must not mind, and the sandbox must go at once. */
async function attacking(options: CreateOptions, work: (sandbox: Sandbox) => Promise<void>): Promise<void> {
  const sandbox = await createTarget(target.squashd.client, options);
  try {
    await work(sandbox);
    await expectHealthy(target.squashd, target.neighbour);
  } finally {
    await sandbox.destroy({ deadlineMs: 10_000 });
  }
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "ok";
  } catch (error) {
    if (isSquashError(error)) return error.code;
    return error instanceof Error ? error.name : "unknown";
  }
}

describe.skipIf(lacks("root"))("a sandbox that turns against its own init", () => {
  it("may have it killed: it is rebuilt, and given up when that happens again and again", async () => {
    await attacking({ id: "suicidal" }, async (sandbox) => {
      await sandbox.exec("echo kept > /root/file");
      for (let death = 1; death <= 3; death++) {
        expect(await codeOf(attack(sandbox, "exhaust-init 15"))).toMatch(/^(sandbox_broken|sandbox_not_ready)$/);
        const fate = (): Promise<unknown> => sandbox.info();
        const expected = death < 3 ? { state: "ready", restarts: death } : { state: "failed", restarts: 2 };
        await expect.poll(fate, { timeout: 10_000 }).toMatchObject(expected);
        if (death < 3) expect(await sandbox.exec("cat /root/file")).toMatchObject({ stdout: "kept\n" });
      }
      expect(await sandbox.info()).toMatchObject({
        reason: expect.stringMatching(/died 3 times within a minute/),
      });
      expect(await codeOf(sandbox.exec("true"))).toBe("sandbox_not_ready");
    });
  });

  it("may kill its sessions, which fails the commands that run", async () => {
    await attacking({}, async (sandbox) => {
      const others = Array.from({ length: 4 }, () => codeOf(sandbox.exec("sleep 30")));
      await expect.poll(async () => (await sandbox.exec("ps -o comm | grep -c '^sleep'")).stdout.trim()).toBe("4");
      expect(await codeOf(attack(sandbox, "signal-all 9"))).toBe("sandbox_broken");
      expect(await Promise.all(others)).toEqual(Array.from({ length: 4 }, () => "sandbox_broken"));
      expect(await sandbox.exec("echo again")).toMatchObject({ stdout: "again\n" });
      expect(await sandbox.info()).toMatchObject({ restarts: 0, running: 0 });
    });
  });

  it("may stop its sessions, which does not keep others from running, or it from being destroyed", async () => {
    await attacking({}, async (sandbox) => {
      const stopped = codeOf(attack(sandbox, "signal-all 19", { signal: AbortSignal.timeout(500) }));
      await new Promise((resolve) => setTimeout(resolve, 200));
      expect(await sandbox.exec("echo still", { timeout: 5 })).toMatchObject({ stdout: "still\n" });
      expect(await stopped).toBe("TimeoutError");
    });
  });

  it("may take its right to make processes, and is told so", async () => {
    await attacking({}, async (sandbox) => {
      expect(await attack(sandbox, `limit 1 ${processLimit} 0 0`)).toMatch(/^escaped: /); // it has the same user
      for (let i = 0; i < 20; i++) {
        const failing = sandbox.exec("true", { stdin: "x".repeat(i * 10_000) });
        await expect(failing).rejects.toMatchObject({
          code: "exec_failed",
          message: expect.stringMatching(/no free process/),
        });
      }
    });
    expect(control(`jail / limit 1 ${processLimit} 100 100`, { unshare: ["--pid", "--fork"] })).toMatch(/^escaped: /);
  });

  it("may change the limits of the session that ran it, which is not used again then", async () => {
    await attacking({}, async (sandbox) => {
      const change = `/opt/probe limit $PPID ${fileLimit} 40 40 && echo $PPID`;
      const { stdout } = await sandbox.exec(change);
      const session = stdout.trim().split("\n").at(-1);
      expect(stdout).toMatch(/^escaped: .*\n\d+\n$/);
      expect((await sandbox.exec("ulimit -n; echo $PPID")).stdout.split("\n")[0]).toBe(String(filesInside()));
      expect((await sandbox.exec("echo $PPID")).stdout.trim()).not.toBe(session);
    });
  });

  it("may take its right to open files, which leaves commands unanswered until their caller goes away", async () => {
    await attacking({ cpu: 0.2 }, async (sandbox) => {
      expect(await attack(sandbox, `limit 1 ${fileLimit} 0 0`)).toMatch(/^escaped: /);
      expect(await codeOf(sandbox.exec("true", { signal: AbortSignal.timeout(500) }))).toBe("TimeoutError");
    });
  });

  it("finds no socket to speak to squashd itself", async () => {
    const { stdout } = await target.sandbox.exec("find / -xdev -type s; grep -c / /proc/net/unix; ls /run");
    expect(stdout.trim()).toBe("0");
  });
});

/** Repeatable bytes: a linear congruential generator, with the constants of Numerical Recipes. */
function noise(count: number, start: number): Buffer {
  const bytes = Buffer.alloc(count);
  let state = start >>> 0;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

function frame(type: number, payload: Buffer | string, size = payload.length): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt32LE(size, 0);
  header.writeUInt16LE(type, 8);
  return Buffer.concat([header, Buffer.from(payload)]);
}

function endlessly(socket: Socket, bytes: Buffer): void {
  const more = (): void => {
    while (!socket.destroyed && socket.write(bytes));
  };
  socket.on("drain", more);
  more();
}

const [stdout, exit, failed] = [0x81, 0x83, 0x84];
const answers: Readonly<Record<string, (socket: Socket) => void>> = {
  noise: (socket) => socket.write(noise(100_000, seed)),
  "a frame that is too large": (socket) => socket.write(frame(stdout, "", 0xffffffff)),
  "a frame of an unknown kind": (socket) => socket.write(frame(0x99, "x")),
  "more output than was asked for": (socket) => endlessly(socket, frame(stdout, Buffer.alloc(60_000))),
  "an exit without a status": (socket) => socket.write(frame(exit, "")),
  "an exit status that does not exist": (socket) => socket.write(frame(exit, Buffer.alloc(8, 0xff))),
  "a failure without words": (socket) => socket.write(frame(failed, Buffer.from([0xff, 0xff, 0xff, 0xff]))),
  "half a frame": (socket) => socket.end(frame(exit, "1234", 8)),
  nothing: (socket) => socket.end(),
  "a hang-up": (socket) => socket.destroy(),
};
const silences: Readonly<Record<string, (socket: Socket) => void>> = {
  "nothing, for ever": () => undefined,
  "half a frame, for ever": (socket) => socket.write(frame(exit, "1234", 8)),
  "empty frames, for ever": (socket) =>
    endlessly(socket, Buffer.concat(Array.from({ length: 1000 }, () => frame(stdout, "")))),
};

/** Puts another listener in the place of a sandbox's init, as one that has been taken over would be. */
async function impersonate(
  sandbox: Sandbox,
  behave: (socket: Socket) => void,
  work: () => Promise<void>,
): Promise<void> {
  const { cgroup } = await sandbox.info();
  const path = `${target.squashd.runDir}/cells/${/c(\d+)$/.exec(cgroup ?? "")?.[1]}.sock`;
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => undefined);
    behave(socket);
  });
  renameSync(path, `${path}.real`);
  await new Promise<void>((listening) => server.listen(path, listening));
  try {
    await work();
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((closed) => server.close(closed));
    renameSync(`${path}.real`, path);
  }
}

describe.skipIf(lacks("root"))(`an init that is not itself any more (SEED=${seed})`, () => {
  it.each(Object.entries(answers))("and sends %s fails the command, and nothing else", async (_, behave) => {
    await impersonate(target.sandbox, behave, async () => {
      await expect(target.sandbox.exec("true", { deadlineMs: 5_000 })).rejects.toMatchObject({
        code: expect.stringMatching(/^(sandbox_broken|exec_failed)$/),
      });
      await expectHealthy(target.squashd, target.neighbour);
    });
    expect(await target.sandbox.exec("echo itself")).toMatchObject({ stdout: "itself\n" });
  });

  it.each(Object.entries(silences))("and sends %s holds up only who asked it", async (_, behave) => {
    await impersonate(target.sandbox, behave, async () => {
      const asking = codeOf(target.sandbox.exec("true", { signal: AbortSignal.timeout(1_000) }));
      await new Promise((resolve) => setTimeout(resolve, 300));
      await expectHealthy(target.squashd, target.neighbour);
      expect(await asking).toBe("TimeoutError");
    });
    expect(await target.sandbox.exec("echo itself")).toMatchObject({ stdout: "itself\n" });
  });

  it("did what was asked, were it itself", async () => {
    const success = frame(exit, Buffer.alloc(8));
    await impersonate(
      target.sandbox,
      (socket) => socket.write(success),
      async () => {
        expect(await target.sandbox.exec("false")).toMatchObject({ exit_code: 0 });
      },
    );
    expect(await target.sandbox.exec("false")).toMatchObject({ exit_code: 1 });
  });
});
