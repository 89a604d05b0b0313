import { connect, type Socket } from "node:net";
import { SquashError } from "@squash/sdk/errors";
import type { Command, CommandResult } from "../core/ports.js";
import { FieldReader, FieldWriter, FrameDecoder, encodeFrame, type Frame } from "./frame.js";
import { exitFlag, session } from "./host-protocol.js";

const shellFlag = 1;
const stdinChunk = 64 * 1024;
/** how long init may take beyond the command's own deadline: it kills the tree, which can take seconds */
const graceMs = 15_000;

/**
 * Runs one command through a cell's init, on a connection of its own. The other end is hostile: whatever it sends is bounded in size,
 * kind and time. Losing the connection without the word to stop leaves the command running, which is how a sandbox survives squashd.
 */
export function runSession(socketPath: string, command: Command, signal: AbortSignal): Promise<CommandResult> {
  return new Promise((resolve, reject) => new Session(socketPath, command, signal, resolve, reject));
}

class Session {
  readonly #socket: Socket;
  readonly #command: Command;
  readonly #signal: AbortSignal;
  readonly #resolve: (result: CommandResult) => void;
  readonly #reject: (error: Error) => void;
  readonly #decoder = new FrameDecoder();
  readonly #outputs = { stdout: new Output(), stderr: new Output() };
  readonly #abort = (): void => this.#cancel();
  #timer: NodeJS.Timeout;
  #settled = false;

  constructor(
    socketPath: string,
    command: Command,
    signal: AbortSignal,
    resolve: (result: CommandResult) => void,
    reject: (error: Error) => void,
  ) {
    this.#command = command;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
    const request = encodeRequest(command); // throws for what fits into no frame, hence first
    this.#timer = setTimeout(() => this.#fail("did not answer in time"), command.timeoutMs + graceMs);
    this.#socket = connect(socketPath);
    this.#socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    this.#socket.on("error", (error) => this.#fail(`cannot be reached: ${error.message}`));
    this.#socket.on("close", () => this.#fail("closed the connection without an answer"));
    if (signal.aborted) {
      this.#settle(() => this.#reject(new SquashError("cancelled", "Cannot run the command: the caller went away")));
      return;
    }
    signal.addEventListener("abort", this.#abort, { once: true });
    this.#socket.write(request);
  }

  /** Tells init to kill the tree; its answer, or the grace period, ends the session. */
  #cancel(): void {
    if (this.#settled) return;
    this.#socket.write(encodeFrame(session.cancel, Buffer.alloc(0)));
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fail("did not stop the command in time"), graceMs);
  }

  #receive(chunk: Buffer): void {
    if (this.#settled) return;
    try {
      for (const frame of this.#decoder.push(chunk)) this.#dispatch(frame);
    } catch (error) {
      this.#fail(`sent what makes no sense: ${(error as Error).message}`);
    }
  }

  #dispatch(frame: Frame): void {
    if (this.#settled) return;
    const limit = this.#command.outputLimit;
    switch (frame.type) {
      case session.stdout:
        this.#outputs.stdout.add(frame.payload, limit);
        return;
      case session.stderr:
        this.#outputs.stderr.add(frame.payload, limit);
        return;
      case session.exit:
        this.#finish(new FieldReader(frame.payload));
        return;
      case session.failed: {
        const what = new FieldReader(frame.payload).string().slice(0, 300);
        this.#settle(() =>
          this.#reject(new SquashError("exec_failed", `Cannot ${what}`, { details: { errno: frame.status } })),
        );
        return;
      }
      default:
        throw new RangeError(`frame type ${frame.type}`);
    }
  }

  #finish(fields: FieldReader): void {
    const code = fields.u32();
    const flags = fields.u32();
    fields.end();
    if (code > 255) throw new RangeError(`exit code ${code}`);
    const { stdout, stderr } = this.#outputs;
    const has = (flag: number): boolean => (flags & flag) !== 0;
    const result = {
      exitCode: code,
      stdout: stdout.bytes(),
      stderr: stderr.bytes(),
      stdoutTruncated: stdout.truncated || has(exitFlag.stdoutTruncated),
      stderrTruncated: stderr.truncated || has(exitFlag.stderrTruncated),
      timedOut: has(exitFlag.timedOut),
      cancelled: has(exitFlag.cancelled) || this.#signal.aborted,
    };
    this.#settle(() => this.#resolve(result));
  }

  #fail(what: string): void {
    this.#settle(() =>
      this.#reject(new SquashError("sandbox_broken", `Cannot run the command: the sandbox's init ${what}`)),
    );
  }

  #settle(action: () => void): void {
    if (this.#settled) return;
    this.#settled = true;
    clearTimeout(this.#timer);
    this.#signal.removeEventListener("abort", this.#abort);
    this.#socket.destroy();
    action();
  }
}

/** What a command and its whole input are on the wire. Throws `RangeError` when the command alone is larger than a frame. */
function encodeRequest(command: Command): Buffer {
  const { argv, shell, workdir, user, env, stdin, timeoutMs, outputLimit } = command;
  const request = new FieldWriter()
    .u32(shell ? shellFlag : 0)
    .u32(timeoutMs)
    .u32(outputLimit)
    .u32(outputLimit);
  request.string(user).string(workdir).strings(argv);
  request.strings(Object.entries(env).map(([name, value]) => `${name}=${value}`));
  const frames = [request.frame(session.exec)];
  const input = Buffer.from(stdin);
  for (let at = 0; at < input.length; at += stdinChunk)
    frames.push(encodeFrame(session.stdin, input.subarray(at, at + stdinChunk)));
  frames.push(encodeFrame(session.stdinEnd, Buffer.alloc(0)));
  return Buffer.concat(frames);
}

/**
 * One output as it comes in. Init keeps to the limit; a hostile one would not. Bytes are copied out of what was read: a byte of output
 * between frames that hold nothing would otherwise keep all of them in memory.
 */
class Output {
  #bytes: Buffer = Buffer.alloc(0);
  #size = 0;
  truncated = false;

  add(bytes: Buffer, limit: number): void {
    const kept = bytes.subarray(0, limit - this.#size);
    if (kept.length < bytes.length) {
      if (this.truncated) throw new RangeError("more output than was asked for");
      this.truncated = true;
    }
    this.#makeRoom(this.#size + kept.length, limit);
    kept.copy(this.#bytes, this.#size);
    this.#size += kept.length;
  }

  bytes(): Buffer {
    return this.#bytes.subarray(0, this.#size);
  }

  #makeRoom(size: number, limit: number): void {
    if (size <= this.#bytes.length) return;
    const larger = Buffer.alloc(Math.min(limit, Math.max(size, 2 * this.#bytes.length)));
    this.#bytes.copy(larger, 0, 0, this.#size);
    this.#bytes = larger;
  }
}
