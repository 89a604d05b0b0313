import { readFileSync } from "node:fs";

import { Command, CommanderError } from "commander";

import type { Context } from "./context.js";
import { exitStatus, UsageError } from "./exit-status.js";
import { addBucket } from "./verbs/bucket.js";
import { addCa } from "./verbs/ca.js";
import { addCreate } from "./verbs/create.js";
import { addDestroy } from "./verbs/destroy.js";
import { addDoctor } from "./verbs/doctor.js";
import { addExec } from "./verbs/exec.js";
import { addHealth } from "./verbs/health.js";
import { addInfo } from "./verbs/info.js";
import { addJobs } from "./verbs/jobs.js";
import { addList } from "./verbs/list.js";
import { addLogs } from "./verbs/logs.js";
import { addMetrics } from "./verbs/metrics.js";
import { addMkbase } from "./verbs/mkbase.js";
import { addMkmod } from "./verbs/mkmod.js";
import { addModule } from "./verbs/module.js";
import { addModules } from "./verbs/modules.js";
import { addNet } from "./verbs/net.js";
import { addRetention } from "./verbs/retention.js";
import { addRun } from "./verbs/run.js";
import { addSecret } from "./verbs/secret.js";
import { addDiff } from "./verbs/diff.js";
import { addSnapshots } from "./verbs/snapshots.js";
import { addStack } from "./verbs/stack.js";

const verbs = [
  addCreate,
  addExec,
  addRun,
  addList,
  addInfo,
  addLogs,
  addNet,
  addSecret,
  addCa,
  addSnapshots,
  addRetention,
  addDiff,
  addStack,
  addDestroy,
  addModules,
  addModule,
  addMkbase,
  addMkmod,
  addBucket,
  addJobs,
  addHealth,
  addDoctor,
  addMetrics,
];

const help = `
Environment:
  SQUASH_API         address of the daemon: http://host:port, https://host:port or unix:/path
                     (http://127.0.0.1:$SQUASH_PORT, where SQUASH_PORT is 8080 if unset)
  SQUASH_AUTH_TOKEN  the daemon's token, where it has one
  NO_COLOR           if not empty, no colours

Exit status:
  0 done, 1 refused, 2 usage; "exec" and "run" exit as their command did, with 125 if it could not start

Examples:
  sq run -- echo hello                  one command in a sandbox of its own
  sq create box --layers 000-base-debian
  sq exec box 'ls /etc | wc -l'         one word: a shell command
  sq exec box -w /tmp -- ls -l          several: a program and its arguments
  sq destroy box
`;

/** Runs `sq` with the arguments behind its name; returns its exit status. */
export async function runProgram(args: readonly string[], context: Omit<Context, "exit">): Promise<number> {
  let status: number = exitStatus.done;
  const program = buildProgram({ ...context, exit: (code) => (status = code) });
  try {
    await program.parseAsync(args, { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError) return isRequestedText(error) ? exitStatus.done : exitStatus.usage;
    if (!(error instanceof UsageError)) throw error;
    context.stderr.write(`sq: ${error.message}\n`);
    return exitStatus.usage;
  }
  return status;
}

function buildProgram(context: Context): Command {
  const program = new Command("sq")
    .description("Composable, disposable sandboxes on one Linux machine")
    .version(readVersion(), "-V, --version")
    .exitOverride()
    .enablePositionalOptions()
    .configureOutput({
      writeOut: (text) => void context.stdout.write(text),
      writeErr: (text) => void context.stderr.write(text),
    })
    .addHelpText("after", help);
  for (const add of verbs) add(program, context);
  return program;
}

/** Whether commander stopped because it had printed the help or the version that was asked for. */
function isRequestedText(error: CommanderError): boolean {
  return error.exitCode === 0;
}

function readVersion(): string {
  const manifest = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}
