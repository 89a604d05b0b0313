import type { JobInfo } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { followJob } from "../follow-job.js";
import { formatAge } from "../format.js";
import { renderTable, type Cell } from "../table.js";

const help = `
Examples:
  sq jobs                      newest first
  sq jobs follow 5f2a91c07d3e  until it is over; Ctrl-C cancels it
  sq jobs cancel 5f2a91c07d3e
`;

/** `sq jobs`: work that the daemon does in the background. */
export function addJobs(program: Command, context: Context): void {
  const jobs = program.command("jobs").description("list the daemon's jobs, newest first").addHelpText("after", help);
  withJson(jobs).action(
    action(context, async (self) => {
      const value = await context.client().jobs({ signal: context.signal });
      printAnswer(context, self, { value, render: (found) => renderJobs(found, context.now(), context.colors) });
    }),
  );

  withJson(jobs.command("follow").description("show how a job goes on").argument("<id>")).action(
    action(context, async (self, id: string) => {
      await followJob(context, self, await context.client().job(id, { signal: context.signal }));
    }),
  );

  jobs
    .command("cancel")
    .description("cancel a job, or take one that is over off the list")
    .argument("<id>")
    .action(
      action(context, async (_, id: string) => {
        await context.client().removeJob(id, { signal: context.signal });
        context.stdout.write(`${id}\n`);
      }),
    );
}

/** One job a row. */
function renderJobs(jobs: readonly JobInfo[], now: Date, colors: Colors): string {
  const rows = jobs.map((job): Cell[] => [
    job.id,
    job.kind,
    job.module,
    stateCell(job, colors),
    job.fraction === null ? "" : `${Math.floor(job.fraction * 100)} %`,
    formatAge(job.created, now),
    job.error ?? job.step,
  ]);
  return renderTable(["ID", "KIND", "MODULE", "STATE", "DONE", "AGE", "STEP"], rows, {
    colors,
    right: ["DONE", "AGE"],
  });
}

function stateCell({ state }: JobInfo, colors: Colors): Cell {
  const paint = state === "done" ? colors.green : state === "failed" ? colors.red : colors.yellow;
  return { text: state, paint };
}
