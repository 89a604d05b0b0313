import type { SandboxInfo } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { formatBytes, formatSeconds } from "../format.js";
import { keptText } from "../kept-text.js";
import { stateCell } from "../sandbox-state.js";
import { renderFacts, type Cell } from "../table.js";

/** `sq info`: one sandbox. */
export function addInfo(program: Command, context: Context): void {
  const command = program.command("info").description("show one sandbox").argument("<id>");
  withJson(command).action(action(context, info));

  async function info(self: Command, id: string): Promise<void> {
    const value = await context.client().get(id, { signal: context.signal });
    printAnswer(context, self, { value, render: (found) => renderSandbox(found, context.colors) });
  }
}

/** One fact a line; facts that do not apply are left out. */
function renderSandbox(info: SandboxInfo, colors: Colors): string {
  const facts: [string, Cell | null][] = [
    ["id", info.id],
    ["state", stateCell(info.state, colors)],
    ["reason", info.reason],
    ["owner", info.owner],
    ["task", info.task || null],
    ["layers", info.layers.join(", ")],
    ["created", info.created],
    ["last active", info.last_active],
    ["lifetime", info.max_lifetime_s === 0 ? "unlimited" : formatSeconds(info.max_lifetime_s)],
    ["commands", `${info.exec_count} run, ${info.running} running`],
    ["cpu", `${info.cpu} cores`],
    ["memory", `${info.memory_mb} MiB, ${info.oom_kills} killed for lack of it`],
    ["processes", `at most ${info.pids}`],
    ["written", `${formatBytes(info.upper_bytes)} of ${formatBytes(info.upper_limit_bytes)}`],
    ["address", info.address],
    ["IPv6 address", info.address6],
    ["may reach", info.allow_net?.join(", ") ?? "everything public"],
    ["may not reach", info.deny_net.join(", ") || null],
    ["secrets", info.secrets_granted.join(", ") || null],
    ["snapshot", info.active_snapshot],
    ["snapshots", info.snapshots.map(({ label }) => label).join(", ") || null],
    ["retention", keptText(info.retention)],
    ["restarts", String(info.restarts)],
    ["cgroup", info.cgroup],
    ["pid", info.pid === null ? null : String(info.pid)],
  ];
  return renderFacts(
    facts.filter((fact): fact is [string, Cell] => fact[1] !== null),
    colors,
  );
}
