import { randomBytes } from "node:crypto";

import { isSquashError, type Client, type Sandbox } from "@squash/sdk";
import type { Command } from "commander";

import { action, withJson } from "../action.js";
import { runCommand } from "../command-run.js";
import type { Context } from "../context.js";
import { exitStatus } from "../exit-status.js";
import { addCreateFlags, addExecFlags, createOptions, type CreateFlags } from "../options.js";
import { printableText } from "../terminal-text.js";

const help = `
The sandbox is destroyed when the command ends, also after Ctrl-C. Command and exit status are as for "sq exec".

Examples:
  sq run -- echo hello
  sq run --layers 000-base-debian,100-python312 -t 10 -- python3 -c 'print(6 * 7)'
`;

/** `sq run`: a command in a sandbox that lives as long as it. */
export function addRun(program: Command, context: Context): void {
  const command = program
    .command("run")
    .description("run a command in a sandbox of its own")
    .usage("[options] [--] <command...>")
    .argument("<command...>")
    .passThroughOptions();
  addExecFlags(addCreateFlags(withJson(command))).addHelpText("after", help);
  command.action(action(context, run, exitStatus.notStarted));

  async function run(self: Command, words: string[]): Promise<void> {
    const sandbox = await create(context.client(), self.opts<CreateFlags>(), context.signal);
    try {
      await runCommand(sandbox, words, { context, command: self });
    } finally {
      await destroy(sandbox, context);
    }
  }
}

async function create(client: Client, flags: CreateFlags, signal: AbortSignal): Promise<Sandbox> {
  const id = `run-${randomBytes(8).toString("hex")}`;
  try {
    return await client.create({ ...createOptions(flags), id, signal });
  } catch (error) {
    // a refused creation leaves nothing; one whose answer did not arrive may have happened
    if (!isSquashError(error))
      await client
        .sandbox(id)
        [Symbol.asyncDispose]()
        .catch(() => undefined); // `error` says more
    throw error;
  }
}

/** Not interruptible, and no reason to hide the command's exit status. */
async function destroy(sandbox: Sandbox, { stderr }: Context): Promise<void> {
  try {
    await sandbox[Symbol.asyncDispose]();
  } catch (error) {
    const reason = printableText(error instanceof Error ? error.message : String(error));
    stderr.write(`sq: ${reason}\nsq: the sandbox may still exist; destroy it with: sq destroy ${sandbox.id}\n`);
  }
}
