import type { Health } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { formatSeconds } from "../format.js";
import { renderFacts } from "../table.js";

/** `sq health`: whether the daemon answers, and its state. */
export function addHealth(program: Command, context: Context): void {
  const command = program.command("health").description("show the state of the daemon");
  withJson(command).action(action(context, health));

  async function health(self: Command): Promise<void> {
    const value = await context.client().health({ signal: context.signal });
    printAnswer(context, self, { value, render: (found) => renderHealth(found, context.colors) });
  }
}

/** One fact a line. */
function renderHealth(health: Health, colors: Colors): string {
  const paint = health.status === "ok" ? colors.green : colors.yellow;
  return renderFacts(
    [
      ["status", { text: health.status, paint }],
      ["version", health.version],
      ["up for", formatSeconds(health.uptime_s)],
      ["sandboxes", String(health.sandboxes)],
      ["modules", health.base_ready ? String(health.modules) : `${health.modules}, no base; make one with sq mkbase`],
      ["pool", `${health.pool.ready} of ${health.pool.size} cells ready`],
      ["secrets", health.secrets.usable ? String(health.secrets.count) : "unusable; sq secret list says why"],
    ],
    colors,
  );
}
