import type { SandboxInfo } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { formatAge, formatBytes } from "../format.js";
import { stateCell } from "../sandbox-state.js";
import { renderTable } from "../table.js";

/** `sq list`: all sandboxes. */
export function addList(program: Command, context: Context): void {
  const command = program.command("list").alias("ls").description("list sandboxes, oldest first");
  withJson(command).action(action(context, list));

  async function list(self: Command): Promise<void> {
    const value = await context.client().list({ signal: context.signal });
    printAnswer(context, self, { value, render: (infos) => renderSandboxes(infos, context.now(), context.colors) });
  }
}

/** One sandbox a row. */
function renderSandboxes(infos: readonly SandboxInfo[], now: Date, colors: Colors): string {
  const rows = infos.map((info) => [
    info.id,
    stateCell(info.state, colors),
    info.owner,
    info.layers.join(","),
    String(info.cpu),
    `${info.memory_mb} MiB`,
    formatBytes(info.upper_bytes),
    String(info.running),
    formatAge(info.created, now),
  ]);
  const head = ["ID", "STATE", "OWNER", "LAYERS", "CPU", "MEMORY", "WRITTEN", "RUNNING", "AGE"];
  return renderTable(head, rows, { colors, right: ["CPU", "MEMORY", "WRITTEN", "RUNNING", "AGE"] });
}
