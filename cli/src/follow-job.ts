import type { Client, JobInfo } from "@squash/sdk";
import type { Command } from "commander";

import { printAnswer } from "./action.js";
import type { Context } from "./context.js";
import { exitStatus } from "./exit-status.js";
import { Progress } from "./progress.js";
import { printableText } from "./terminal-text.js";

const cancelMs = 10_000;

/** Shows how a job goes on until it is over, and prints the name of what it made. Returns its last state. Whoever interrupts this cancels the job. */
export async function followJob(context: Context, command: Command, started: JobInfo): Promise<JobInfo> {
  const client = context.client();
  const progress = new Progress(context);
  let last = started;
  try {
    for await (const job of client.watchJob(started.id, { signal: context.signal })) {
      last = job;
      if (job.state === "queued") progress.show("waiting for other jobs", null);
      else if (job.step !== "") progress.show(job.step, job.fraction);
    }
  } catch (error) {
    progress.end();
    if (context.signal.aborted) await cancel(client, started.id);
    throw error;
  }
  progress.end();
  if (last.state === "done") {
    printAnswer(context, command, {
      value: last,
      render: ({ modules }) => modules.map((each) => `${each}\n`).join(""),
    });
    return last;
  }
  if (command.opts<{ json?: true }>().json === true) printAnswer(context, command, { value: last, render: () => "" });
  else context.stderr.write(`sq: ${printableText(last.error ?? `the job is ${last.state}`)}\n`);
  context.exit(exitStatus.refused);
  return last;
}

async function cancel(client: Client, id: string): Promise<void> {
  try {
    await client.removeJob(id, { deadlineMs: cancelMs });
  } catch {
    // it may be over, or the daemon gone; the interruption is what is reported
  }
}
