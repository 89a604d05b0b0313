import { spawn, type ChildProcess } from "node:child_process";
import { finished, pipeline } from "node:stream/promises";
import type { Readable, Writable } from "node:stream";
import { SquashError } from "@squash/sdk/errors";

const keptErrorBytes = 16 * 1024;
const graceMs = 2_000;
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Debian packages of the programs that builders start. */
export const packageOf: Readonly<Record<string, string>> = {
  mksquashfs: "squashfs-tools",
  sqfstar: "squashfs-tools",
  unsquashfs: "squashfs-tools",
  "mkfs.erofs": "erofs-utils",
  "fsck.erofs": "erofs-utils",
  "mkfs.ext4": "e2fsprogs",
  "mkfs.btrfs": "btrfs-progs",
  mmdebstrap: "mmdebstrap",
  busybox: "busybox-static",
  unshare: "util-linux",
  gzip: "gzip",
  xz: "xz-utils",
  zstd: "zstd",
  "apt-config": "apt",
};

export interface ToolOptions {
  /** what is being done, for the message of a failure, such as `pack` */
  readonly op: string;
  /** what it is done to */
  readonly target: string;
  readonly deadlineMs: number;
  /** ends the program and all that it started */
  readonly signal?: AbortSignal;
  /** text, a stream, or an open file descriptor; @default nothing */
  readonly stdin?: string | Readable | number;
  /** takes the output instead of the answer */
  readonly stdout?: Writable;
  /** bytes of output that are answered; more is a failure; @default 1 MiB */
  readonly outputLimit?: number;
  /** added to the minimal environment */
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a host program without a shell, in a process group of its own. Returns its output. Throws `build_failed`, or `cancelled` when aborted. */
export type RunTool = (argv: readonly [string, ...string[]], options: ToolOptions) => Promise<string>;

export const runTool: RunTool = async (argv, options) => {
  const [program, ...args] = argv;
  const subject = `Cannot ${options.op} "${options.target}"`;
  if (options.signal?.aborted === true) throw new SquashError("cancelled", `${subject}: cancelled`);
  const child = spawn(program, args, {
    cwd: "/",
    detached: true, // a group of its own, which can be killed as a whole
    env: { PATH: path, LC_ALL: "C", ...options.env },
    stdio: [
      typeof options.stdin === "number" ? options.stdin : options.stdin === undefined ? "ignore" : "pipe",
      "pipe",
      "pipe",
    ],
  });
  const ending = watch(child, options);
  try {
    const errors = new Tail(keptErrorBytes);
    child.stderr?.on("data", (chunk: Buffer) => errors.add(chunk));
    const output = collect(child, options, ending.stop);
    const feeding = feed(child, options.stdin, ending.stop);
    // all at once: a rejection that nobody awaits yet would end the daemon
    const [{ status, error }] = await Promise.all([exitOf(child), Promise.allSettled([output, feeding])]);
    if (error !== undefined) throw notStarted(subject, program, error);
    if (ending.reason() === "cancelled") throw new SquashError("cancelled", `${subject}: cancelled`);
    if (ending.reason() === "deadline")
      throw failed(`${program} did not end within ${options.deadlineMs / 1000} s`, errors);
    const text = await output.catch((cause: unknown) =>
      Promise.reject(failed(`output of ${program}: ${(cause as Error).message}`, errors, cause)),
    );
    if (status !== 0)
      throw failed(`${program} ended with ${typeof status === "number" ? `status ${status}` : status}`, errors);
    await feeding.catch((cause: unknown) =>
      Promise.reject(failed(`input of ${program}: ${(cause as Error).message}`, errors, cause)),
    );
    return text;
  } finally {
    ending.forget();
  }

  function failed(what: string, errors: Tail, cause?: unknown): SquashError {
    const stderr = errors.text();
    const said = stderr === "" ? "" : `: ${stderr.split("\n").slice(-5).join(" | ")}`;
    const details = { argv, stderr };
    return new SquashError(
      "build_failed",
      `${subject}: ${what}${said}`,
      cause === undefined ? { details } : { cause, details },
    );
  }
};

interface Ending {
  /** ends the whole group */
  readonly stop: () => void;
  readonly reason: () => "deadline" | "cancelled" | null;
  readonly forget: () => void;
}

function watch(child: ChildProcess, options: ToolOptions): Ending {
  let reason: "deadline" | "cancelled" | null = null;
  let killer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    killGroup(child, "SIGTERM");
    killer ??= setTimeout(() => {
      killGroup(child, "SIGKILL");
      // something that left the group may still hold the pipes
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
    }, graceMs);
  };
  const end = (why: "deadline" | "cancelled"): void => {
    reason ??= why;
    stop();
  };
  const timer = setTimeout(() => end("deadline"), options.deadlineMs);
  const aborted = (): void => end("cancelled");
  options.signal?.addEventListener("abort", aborted, { once: true });
  return {
    stop,
    reason: () => reason,
    forget: () => {
      clearTimeout(timer);
      clearTimeout(killer);
      options.signal?.removeEventListener("abort", aborted);
      if (killer !== undefined) killGroup(child, "SIGKILL"); // what is left of a group that was to end
    },
  };
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function exitOf(
  child: ChildProcess,
): Promise<{ status: number | NodeJS.Signals | null; error?: NodeJS.ErrnoException }> {
  return new Promise((settle) => {
    child.once("error", (error) => settle({ status: null, error }));
    child.once("close", (code, signal) => settle({ status: code ?? signal }));
  });
}

async function collect(child: ChildProcess, options: ToolOptions, stop: () => void): Promise<string> {
  if (child.stdout === null) return "";
  try {
    if (options.stdout !== undefined) {
      await pipeline(child.stdout, options.stdout);
      return "";
    }
    const limit = options.outputLimit ?? 1_048_576;
    const chunks: Buffer[] = [];
    let size = 0;
    child.stdout.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size <= limit) chunks.push(chunk);
      else child.stdout?.destroy(new Error(`it is larger than ${limit} bytes`));
    });
    await finished(child.stdout);
    return Buffer.concat(chunks).toString("utf8");
  } catch (error) {
    stop();
    throw error;
  }
}

async function feed(child: ChildProcess, stdin: ToolOptions["stdin"], stop: () => void): Promise<void> {
  if (child.stdin === null || stdin === undefined || typeof stdin === "number") return;
  try {
    await pipeline(typeof stdin === "string" ? [stdin] : stdin, child.stdin);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EPIPE") return; // its status says whether it needed the rest
    stop();
    throw error;
  }
}

function notStarted(subject: string, program: string, cause: NodeJS.ErrnoException): SquashError {
  const name = packageOf[program];
  const hint = name === undefined ? "" : `; install the Debian package "${name}" (apt-get install ${name})`;
  const found =
    cause.code === "ENOENT" ? `${program} is not installed${hint}` : `${program} cannot be started (${cause.message})`;
  return new SquashError("build_failed", `${subject}: ${found}`, { cause });
}

/** The last bytes of a stream. */
class Tail {
  readonly #limit: number;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]).subarray(-this.#limit);
  }

  text(): string {
    return this.#bytes.toString("utf8").trim();
  }
}
