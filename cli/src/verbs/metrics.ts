import type { Command } from "commander";

import { action } from "../action.js";
import type { Context } from "../context.js";
import { printableText } from "../terminal-text.js";

/** `sq metrics`: the daemon's metrics as Prometheus reads them. */
export function addMetrics(program: Command, context: Context): void {
  program
    .command("metrics")
    .description("print the daemon's metrics in Prometheus' text format")
    .action(action(context, metrics));

  async function metrics(): Promise<void> {
    context.stdout.write(printableText(await context.client().metrics({ signal: context.signal })));
  }
}
