import { Command } from "commander";

import { action, withJson } from "../action.js";
import { runCommand } from "../command-run.js";
import type { Context } from "../context.js";
import { exitStatus, UsageError } from "../exit-status.js";
import { addExecFlags, type ExecFlags } from "../options.js";

const help = `
One word is a shell command with the login environment; several are a program and its arguments, passed on exactly.
Options stand before the command; from its first word, or from --, nothing is an option any more.
Exits as the command did: 124 timed out, 128+N killed by signal N. 125 if it could not start.

Examples:
  sq exec box 'cd /tmp && ls | wc -l'
  sq exec box -w /tmp -e DEBUG=1 python3 -c 'print(6 * 7)'
  sq exec box -i -- sort -r < words.txt
`;

/** `sq exec`: a command in a sandbox that exists. */
export function addExec(program: Command, context: Context): void {
  const command = program
    .command("exec")
    .description("run a command in a sandbox")
    .usage("<id> [options] [--] <command...>")
    .argument("<id>")
    .argument("[command...]")
    .passThroughOptions();
  addExecFlags(withJson(command))
    .addHelpText("after", help)
    .action(action(context, exec, exitStatus.notStarted));

  async function exec(self: Command, id: string, rest: string[]): Promise<void> {
    const words = readOptions(self, rest);
    if (words.length === 0) throw new UsageError("Cannot exec: the command is missing");
    await runCommand(context.client().sandbox(id), words, { context, command: self });
  }
}

/** Adds the options between the id and the command to those before the id; returns the command's words. */
function readOptions(outer: Command, rest: readonly string[]): string[] {
  const inner = new Command("exec").copyInheritedSettings(outer).helpOption(false).passThroughOptions();
  addExecFlags(withJson(inner)).option("-h, --help").argument("[command...]");
  inner.action(() => undefined).parse(rest, { from: "user" });
  const { help: wantsHelp, ...flags } = inner.opts<ExecFlags & { help?: true }>();
  if (wantsHelp === true) outer.help();
  const { env } = outer.opts<ExecFlags>();
  for (const [name, value] of Object.entries(flags)) outer.setOptionValue(name, value);
  if (env !== undefined) outer.setOptionValue("env", { ...env, ...flags.env });
  return inner.args;
}
