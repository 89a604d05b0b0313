import { addAbortSignal } from "node:stream";

import type { ExecResult, Sandbox } from "@squash/sdk";
import type { Command } from "commander";

import { printAnswer } from "./action.js";
import type { Context } from "./context.js";
import { execOptions, type ExecFlags } from "./options.js";

const maxInputBytes = 1024 * 1024;

/**
 * Runs a command line and passes its output and exit status on. One word is a shell command, several are a program and its
 * arguments. Throws when the command could not be started.
 */
export async function runCommand(
  sandbox: Sandbox,
  words: readonly string[],
  { context, command }: { context: Context; command: Command },
): Promise<void> {
  const flags = command.opts<ExecFlags>();
  const input = flags.stdin === true ? { stdin: await readInput(context) } : {};
  const [first] = words;
  const line = words.length === 1 && first !== undefined ? first : words;
  const result = await sandbox.exec(line, { ...execOptions(flags), ...input, signal: context.signal });
  printAnswer(context, command, { value: result, render: (value) => passOn(value, context) });
  context.exit(result.exit_code);
}

/** Standard output as it came from the command; the rest goes to standard error. */
function passOn(result: ExecResult, context: Context): string {
  const remarks = [
    result.stdout_truncated ? "standard output was longer, its end is missing" : "",
    result.stderr_truncated ? "standard error was longer, its end is missing" : "",
    result.timed_out ? "the command took too long and was killed" : "",
    result.oom_killed ? "the kernel killed a process for lack of memory" : "",
  ];
  const notes = remarks.filter((remark) => remark !== "").map((remark) => `sq: ${remark}\n`);
  context.stderr.write(result.stderr + notes.join(""));
  return result.stdout;
}

async function readInput({ stdin, signal }: Context): Promise<string> {
  signal.throwIfAborted();
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of addAbortSignal(signal, stdin()) as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxInputBytes) throw new Error("Cannot pass standard input on: it is larger than 1 MiB");
      chunks.push(chunk);
    }
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch (cause) {
    throw new Error("Cannot pass standard input on: it is not UTF-8 text", { cause });
  }
}
