import type { Command } from "commander";

import { action, reportFailure, withJson } from "../action.js";
import type { Context } from "../context.js";
import { exitStatus } from "../exit-status.js";

/** `sq destroy`: sandboxes and all that is in them. */
export function addDestroy(program: Command, context: Context): void {
  const command = program
    .command("destroy")
    .alias("rm")
    .description("destroy sandboxes; prints the id of each that is gone")
    .argument("<id...>")
    .addHelpText("after", "\nExamples:\n  sq destroy box\n  sq rm box-1 box-2\n");
  withJson(command).action(action(context, destroy));

  async function destroy(self: Command, ids: string[]): Promise<void> {
    const client = context.client();
    for (const id of ids) {
      try {
        await client.sandbox(id).destroy({ signal: context.signal });
        // the API answers with nothing, so there is no JSON to print
        if (self.opts<{ json?: true }>().json !== true) context.stdout.write(`${id}\n`);
      } catch (error) {
        if (context.signal.aborted) throw error;
        reportFailure(context, self, error);
        context.exit(exitStatus.refused);
      }
    }
  }
}
