import type { ExecRequest, ExecResult } from "@squash/sdk/protocol";
import type { Command, CommandResult } from "./ports.js";

/** bytes kept of each output */
const outputLimit = 64 * 1024;

const defaultTimeoutS = 300;

/** What a validated request asks the kernel to run. */
export function toCommand(request: ExecRequest): Command {
  return {
    argv: typeof request.cmd === "string" ? [request.cmd] : request.cmd,
    shell: typeof request.cmd === "string",
    workdir: request.workdir ?? "/",
    user: request.user === undefined ? "" : String(request.user),
    env: request.env ?? {},
    stdin: request.stdin ?? "",
    timeoutMs: Number(request.timeout ?? defaultTimeoutS) * 1000,
    outputLimit,
  };
}

/** What is answered and logged. */
export function execResult(facts: {
  readonly seq: number;
  readonly request: ExecRequest;
  readonly started: Date;
  readonly durationMs: number;
  readonly result: CommandResult;
  readonly oomKilled: boolean;
}): ExecResult {
  const { seq, request, started, durationMs, result, oomKilled } = facts;
  return {
    seq,
    cmd: request.cmd,
    workdir: request.workdir ?? "/",
    exit_code: result.exitCode,
    started: started.toISOString(),
    finished: new Date(started.getTime() + durationMs).toISOString(),
    duration_ms: Math.round(durationMs * 1000) / 1000,
    stdout: result.stdout.toString("utf8"),
    stderr: result.stderr.toString("utf8"),
    stdout_truncated: result.stdoutTruncated,
    stderr_truncated: result.stderrTruncated,
    timed_out: result.timedOut,
    oom_killed: oomKilled,
  };
}
