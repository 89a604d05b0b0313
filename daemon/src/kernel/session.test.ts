import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { isSquashError } from "@squash/sdk/errors";
import type { Command, CommandResult } from "../core/ports.js";
import { FieldWriter, FrameDecoder, encodeFrame, headerSize, maxPayload } from "./frame.js";
import { exitFlag, session } from "./host-protocol.js";
import { runSession } from "./session.js";

const never = new AbortController().signal;
const command: Command = {
  argv: ["true"],
  shell: false,
  workdir: "/",
  user: "",
  env: { A: "1" },
  stdin: "",
  timeoutMs: 1_000,
  outputLimit: 4_096,
};
const folder = mkdtempSync(join(tmpdir(), "session-test-"));
const unhandled: unknown[] = [];
const note = (reason: unknown): void => void unhandled.push(reason);
let counter = 0;
let server: Server | undefined;
let open: Socket[] = [];

beforeAll(() => process.on("unhandledRejection", note));
afterEach(async () => {
  vi.useRealTimers();
  await endInit();
  expect(unhandled).toEqual([]);
});
afterAll(() => {
  process.off("unhandledRejection", note);
  rmSync(folder, { recursive: true });
});

/** Starts an init that does with each connection what the test says; returns its socket's path. */
async function init(behave: (socket: Socket) => void): Promise<string> {
  const path = join(folder, `${++counter}.sock`);
  const started = createServer((socket) => {
    open.push(socket);
    socket.on("error", () => undefined); // squashd hangs up on what makes no sense
    behave(socket);
  });
  await new Promise<void>((done) => started.listen(path, done));
  server = started;
  return path;
}

async function endInit(): Promise<void> {
  for (const socket of open) socket.destroy();
  open = [];
  await new Promise((done) => (server === undefined ? done(null) : server.close(done)));
  server = undefined;
}

/** The result, or the code and message of the error. */
async function outcome(running: Promise<CommandResult>): Promise<CommandResult | { code: string; message: string }> {
  try {
    return await running;
  } catch (error) {
    return { code: isSquashError(error) ? error.code : "not a SquashError", message: String(error) };
  }
}

function exit(code: number, flags = 0): Buffer {
  return new FieldWriter().u32(code).u32(flags).frame(session.exit);
}

function stdout(text: string | Buffer): Buffer {
  return encodeFrame(session.stdout, Buffer.from(text));
}

/** Writes the same bytes for as long as squashd takes them. */
function flood(socket: Socket, bytes: Buffer): void {
  if (!socket.destroyed) socket.write(bytes, () => flood(socket, bytes));
}

/** Only the clock of the session stands still; sockets go on. */
function stopClock(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
}

function pause(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}

function usedBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().arrayBuffers;
}

describe("runSession()", () => {
  it("sends the request and gives what init answers", async () => {
    const received: string[] = [];
    const path = await init((socket) => {
      const decoder = new FrameDecoder();
      socket.on("data", (chunk) => {
        for (const { type, payload } of decoder.push(chunk)) {
          received.push(`${type}:${payload.length}`);
          if (type !== session.stdinEnd) continue;
          socket.write(Buffer.concat([stdout("out"), encodeFrame(session.stderr, Buffer.from("err")), exit(3)]));
        }
      });
    });
    const stdin = "x".repeat(100_000);
    expect(await outcome(runSession(path, { ...command, stdin }, never))).toEqual({
      exitCode: 3,
      stdout: Buffer.from("out"),
      stderr: Buffer.from("err"),
      stdoutTruncated: false,
      stderrTruncated: false,
      timedOut: false,
      cancelled: false,
    });
    expect(received.slice(1)).toEqual(["2:65536", "2:34464", "3:0"]);
  });

  it("gives what init says about time, cancellation and cut outputs", async () => {
    const flags = exitFlag.timedOut | exitFlag.cancelled | exitFlag.stderrTruncated;
    const path = await init((socket) => socket.write(exit(124, flags)));
    expect(await outcome(runSession(path, command, never))).toMatchObject({
      exitCode: 124,
      timedOut: true,
      cancelled: true,
      stdoutTruncated: false,
      stderrTruncated: true,
    });
  });

  it("cuts outputs at the limit, even when init does not", async () => {
    const path = await init((socket) => socket.write(Buffer.concat([stdout("x".repeat(5_000)), exit(0)])));
    const result = await outcome(runSession(path, command, never));
    expect(result).toMatchObject({ stdoutTruncated: true, exitCode: 0 });
    expect(result).toHaveProperty("stdout", Buffer.from("x".repeat(4_096)));
  });

  it("tells what init could not do", async () => {
    const failed = new FieldWriter().string("x".repeat(10_000)).frame(session.failed);
    const path = await init((socket) => socket.write(failed));
    const result = await outcome(runSession(path, command, never));
    expect(result).toMatchObject({ code: "exec_failed" });
    expect((result as { message: string }).message.length).toBeLessThan(400);
  });

  it("refuses a command that fits into no frame, and keeps no connection", async () => {
    let closed = false;
    const path = await init((socket) => socket.resume().on("close", () => (closed = true)));
    const argv = ["x".repeat(maxPayload)];
    expect(await outcome(runSession(path, { ...command, argv }, never))).toMatchObject({
      message: /larger than/,
    });
    await expect.poll(() => closed || open.length === 0).toBe(true);
  });
});

describe("a hostile init", () => {
  const nonsense: Readonly<Record<string, Buffer>> = {
    "an unknown frame": encodeFrame(0x99, Buffer.alloc(0)),
    "a frame that only squashd sends": encodeFrame(session.exec, Buffer.alloc(10)),
    "a frame that is larger than the limit": Buffer.from("ffffffff0000000081000000", "hex"),
    "text instead of frames": Buffer.from("HTTP/1.1 200 OK\r\n\r\nhello hello hello"),
    "an exit without fields": encodeFrame(session.exit, Buffer.alloc(0)),
    "an exit with half its fields": encodeFrame(session.exit, Buffer.alloc(7)),
    "an exit with more than its fields": encodeFrame(session.exit, Buffer.alloc(9)),
    "an exit code that none can be": exit(256),
    "a failure without text": encodeFrame(session.failed, Buffer.alloc(0)),
    "a failure whose text is longer than its frame": encodeFrame(session.failed, Buffer.from("ffffff7f", "hex")),
    "output beyond the limit, again": Buffer.concat([stdout("x".repeat(5_000)), stdout("x")]),
  };

  it.each(Object.entries(nonsense))("that sends %s is broken", async (_, bytes) => {
    const path = await init((socket) => socket.write(bytes));
    expect(await outcome(runSession(path, command, never))).toMatchObject({
      code: "sandbox_broken",
      message: /the sandbox's init sent what makes no sense/,
    });
  });

  it("that hangs up at once is broken", async () => {
    for (const end of ["end", "destroy"] as const) {
      const path = await init((socket) => socket[end]());
      expect(await outcome(runSession(path, command, never))).toMatchObject({ code: "sandbox_broken" });
      await endInit();
    }
  });

  it("that hangs up in the middle of a frame is broken", async () => {
    for (const size of [1, headerSize - 1, headerSize, headerSize + 5]) {
      const path = await init((socket) => socket.end(exit(0).subarray(0, size)));
      expect(await outcome(runSession(path, command, never))).toMatchObject({
        code: "sandbox_broken",
        message: /closed the connection/,
      });
      await endInit();
    }
  });

  it("that is not there is broken", async () => {
    expect(await outcome(runSession(join(folder, "none.sock"), command, never))).toMatchObject({
      code: "sandbox_broken",
      message: /cannot be reached: .*ENOENT/,
    });
  });

  it("cannot change its answer: what comes after the exit is ignored", async () => {
    const path = await init((socket) => socket.write(Buffer.concat([exit(1), exit(2), stdout("late"), exit(999)])));
    expect(await outcome(runSession(path, command, never))).toMatchObject({ exitCode: 1, stdout: Buffer.alloc(0) });
  });

  const endless: Readonly<Record<string, (socket: Socket) => void>> = {
    "says nothing": (socket) => socket.resume(),
    "neither reads nor says anything": (socket) => socket.pause(),
    "sends half a frame and waits": (socket) => socket.resume().write(exit(0).subarray(0, 15)),
    "sends empty outputs without end": (socket) => flood(socket.resume(), Buffer.alloc(65_536 - 4, stdout(""))),
  };

  it.each(Object.entries(endless))("that %s is given up on when the time is over", async (_, behave) => {
    stopClock();
    const path = await init(behave);
    const stdin = "x".repeat(1_000_000);
    const running = outcome(runSession(path, { ...command, stdin }, never));
    let ended = false;
    void running.then(() => (ended = true));
    await vi.advanceTimersByTimeAsync(command.timeoutMs + 14_999);
    for (let i = 0; i < 20; i++) await pause();
    expect(ended).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(await running).toMatchObject({ code: "sandbox_broken", message: /did not answer in time/ });
    expect(vi.getTimerCount()).toBe(0);
  });

  it("that does not stop when told to is given up on", async () => {
    stopClock();
    const types: number[] = [];
    const decoder = new FrameDecoder();
    const path = await init((socket) =>
      socket.on("data", (chunk) => {
        for (const { type } of decoder.push(chunk)) types.push(type);
      }),
    );
    const abort = new AbortController();
    const running = outcome(runSession(path, command, abort.signal));
    while (types.length < 2) await pause();
    abort.abort();
    while (types.length < 3) await pause();
    expect(types.at(-1)).toBe(session.cancel);
    await vi.advanceTimersByTimeAsync(15_000);
    expect(await running).toMatchObject({ code: "sandbox_broken", message: /did not stop the command in time/ });
    expect(vi.getTimerCount()).toBe(0);
  });

  it("is not spoken to for a caller who has gone already", async () => {
    stopClock();
    const path = await init((socket) => socket.resume());
    expect(await outcome(runSession(path, command, AbortSignal.abort()))).toMatchObject({ code: "cancelled" });
    expect(vi.getTimerCount()).toBe(0);
  });

  it("cannot make squashd keep more than the outputs, however it packs them", async () => {
    // A byte of output in each 64 KiB of empty frames: whoever keeps pieces of what was read keeps all of it.
    const filler = Buffer.alloc(65_532, stdout(""));
    const count = 1_000;
    let sentAll: () => void = () => undefined;
    const sent = new Promise<void>((done) => (sentAll = done));
    const path = await init((socket) => {
      socket.resume();
      void (async () => {
        for (let i = 0; i < count; i++)
          await new Promise((done) => socket.write(Buffer.concat([stdout("x"), filler]), done));
        sentAll();
      })();
    });
    const before = usedBytes();
    const running = outcome(runSession(path, { ...command, timeoutMs: 60_000 }, never));
    await sent;
    for (let i = 0; i < 100; i++) await pause();
    expect(usedBytes() - before).toBeLessThan(8_000_000);
    open[0]?.write(exit(0));
    const result = await running;
    expect(result).toMatchObject({ exitCode: 0, stdoutTruncated: false });
    expect((result as CommandResult).stdout.toString()).toBe("x".repeat(count));
  });

  it("gets an answer or a documented error out of squashd, whatever it sends, and never more than the limit", async () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
      fc.string({ maxLength: 2_000 }).map((text) => stdout(text)),
      fc.string({ maxLength: 2_000 }).map((text) => encodeFrame(session.stderr, Buffer.from(text))),
      fc.tuple(fc.nat(300), fc.nat(31)).map(([code, flags]) => exit(code, flags)),
      fc.string({ maxLength: 50 }).map((text) => new FieldWriter().string(text).frame(session.failed)),
      fc
        .tuple(fc.nat(0x90), fc.uint8Array({ maxLength: 50 }))
        .map(([type, payload]) => encodeFrame(type, Buffer.from(payload))),
    );
    let plan: readonly Buffer[] = [];
    const path = await init((socket) => {
      socket.resume();
      void (async () => {
        for (const bytes of plan) {
          socket.write(bytes);
          await pause();
        }
        socket.end();
      })();
    });
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
        plan = pieces;
        const result = await outcome(runSession(path, command, never));
        if ("code" in result) {
          expect(["sandbox_broken", "exec_failed"]).toContain(result.code);
          expect(result.message.length).toBeLessThan(500);
          return;
        }
        expect(result.exitCode).toBeLessThanOrEqual(255);
        expect(result.stdout.length).toBeLessThanOrEqual(command.outputLimit);
        expect(result.stderr.length).toBeLessThanOrEqual(command.outputLimit);
      }),
      { numRuns: 200 },
    );
  });
});
