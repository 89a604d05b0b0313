import type { ExecResult } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { wholeNumber } from "../options.js";
import { printableLine, printableText } from "../terminal-text.js";

/** `sq logs`: what was run in a sandbox, and what came of it. */
export function addLogs(program: Command, context: Context): void {
  const command = program
    .command("logs")
    .description("show the finished commands of a sandbox and their output")
    .argument("<id>")
    .option("-n, --last <count>", "only so many, the latest", wholeNumber);
  withJson(command).action(action(context, logs));

  async function logs(self: Command, id: string): Promise<void> {
    const { last } = self.opts<{ last?: number }>();
    const all = await context.client().sandbox(id).logs({ signal: context.signal });
    const value = last === undefined ? all : all.slice(Math.max(0, all.length - last));
    printAnswer(context, self, { value, render: (results) => renderLogs(results, context.colors) });
  }
}

/** A head line for each command, then its output without control characters. */
function renderLogs(results: readonly ExecResult[], colors: Colors): string {
  return results.map((result) => renderLog(result, colors)).join("");
}

function renderLog(result: ExecResult, colors: Colors): string {
  const status = result.timed_out ? "timed out" : `exit ${result.exit_code}`;
  const paint = result.exit_code === 0 ? colors.green : colors.red;
  const duration = `${Math.round(result.duration_ms)} ms`;
  const line = typeof result.cmd === "string" ? result.cmd : result.cmd.map(quote).join(" ");
  const facts = `${colors.bold(`#${result.seq}`)} ${printableLine(result.started)} ${paint(status)} ${duration}`;
  return `${facts}  ${colors.bold(printableLine(line))}\n${endLine(result.stdout)}${endLine(result.stderr)}`;
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function endLine(text: string): string {
  const printable = printableText(text);
  return printable === "" || printable.endsWith("\n") ? printable : `${printable}\n`;
}
