import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Context } from "../context.js";
import { followJob } from "../follow-job.js";
import { keptText } from "../kept-text.js";
import { duration, moduleFormats, retentionOf, wholeNumber, type CreateFlags } from "../options.js";

const retentionHelp = `
A snapshot stays while one of the two keeps it. What is not said is the daemon's to say; 0 keeps none by itself, and both 0 keep all. Pinned
snapshots, the one that was restored, and the newest of the line always stay.

Examples:
  sq retention box --keep-last 10
  sq retention box --keep-last 3 --keep-for 7d
`;

const promoteHelp = `
The daemon makes it, as a job that is followed until it is over; Ctrl-C cancels it. The module requires those that the snapshot stands on.

Examples:
  sq promote box with-jq 200-jq
  sq create other --layers 000-base-debian,200-jq
`;

/** `sq retention`, `sq promote`: what becomes of snapshots. */
export function addRetention(program: Command, context: Context): void {
  const retention = program
    .command("retention")
    .description("say which of a sandbox's snapshots stay; those that do not go at once, and are printed")
    .argument("<id>")
    .option("--keep-last <count>", "so many of the newest", wholeNumber)
    .option("--keep-for <time>", "those that are no older: 90s, 15m, 12h, 7d", duration)
    .addHelpText("after", retentionHelp);
  withJson(retention).action(
    action(context, async (self, id: string) => {
      const request = retentionOf(self.opts<Pick<CreateFlags, "keepLast" | "keepFor">>());
      const value = await context.client().sandbox(id).setRetention(request, { signal: context.signal });
      printAnswer(context, self, {
        value,
        render: ({ removed, ...kept }) =>
          [`${keptText(kept)}\n`, ...removed.map((label) => `removed ${label}\n`)].join(""),
      });
    }),
  );

  const promote = program
    .command("promote")
    .description("make a module of a snapshot; prints its name")
    .argument("<id>")
    .argument("<label>", "of the snapshot")
    .argument("<module>", "name of the module, with a number above those of the sandbox's modules")
    .option("--replace", "replace a module of that name")
    .option("--format <format>", "squashfs, erofs or both (erofs)")
    .option("--detach", "print the id of the job instead of following it")
    .addHelpText("after", promoteHelp);
  withJson(promote).action(
    action(context, async (self, id: string, snapshot: string, module: string) => {
      const { replace, detach, format } = self.opts<{ replace?: true; detach?: true; format?: string }>();
      const formats = format === undefined ? {} : { formats: moduleFormats(format) };
      const request = { snapshot, module, ...(replace && { replace }), ...formats };
      const job = await context.client().sandbox(id).promote(request, { signal: context.signal });
      if (detach === true) printAnswer(context, self, { value: job, render: (started) => `${started.id}\n` });
      else await followJob(context, self, job);
    }),
  );
}
