import type { CommandResult } from "../ports.js";

/** What a command that printed this has come to. */
export function success(stdout: string): CommandResult {
  const nothing = Buffer.alloc(0);
  return {
    exitCode: 0,
    stdout: Buffer.from(stdout),
    stderr: nothing,
    stdoutTruncated: false,
    stderrTruncated: false,
    timedOut: false,
    cancelled: false,
  };
}
