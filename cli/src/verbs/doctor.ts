import type { DoctorCheck } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { exitStatus } from "../exit-status.js";
import { renderTable, type Cell } from "../table.js";

/** `sq doctor`: whether squashd can work on this host. */
export function addDoctor(program: Command, context: Context): void {
  const command = program
    .command("doctor")
    .description("check whether squashd can work on this host")
    .option("--remove-network", "take the firewall's rules and all else of the sandboxes' network off this host")
    .addHelpText("after", "\nNeeds no running daemon. Exits with 1 when a required check fails.\n");
  withJson(command).action(action(context, doctor));

  async function doctor(self: Command): Promise<void> {
    if (self.opts<{ removeNetwork?: true }>().removeNetwork === true) {
      context.exit(await context.squashd.run(["doctor", "--remove-network"]));
      return;
    }
    const value = parseChecks(await context.squashd.read(["doctor", "--json"]));
    printAnswer(context, self, { value, render: (checks) => renderChecks(checks, context.colors) });
    if (value.some((check) => check.required && !check.ok)) context.exit(exitStatus.refused);
  }
}

/** One check a row: a tick or a cross, its name, what was found. */
function renderChecks(checks: readonly DoctorCheck[], colors: Colors): string {
  const rows = checks.map((check) => [markOf(check, colors), check.name, detailOf(check)]);
  return renderTable(["", "CHECK", "FOUND"], rows, { colors });
}

function markOf({ ok, required }: DoctorCheck, colors: Colors): Cell {
  if (ok) return { text: "✓", paint: colors.green };
  return { text: "✗", paint: required ? colors.red : colors.yellow };
}

function detailOf({ ok, required, detail }: DoctorCheck): string {
  return ok || required ? detail : `${detail} (optional)`;
}

function parseChecks(text: string): DoctorCheck[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Error("Cannot read what squashd doctor found: it is not JSON", { cause });
  }
  if (!Array.isArray(value) || !value.every(isCheck)) {
    throw new Error("Cannot read what squashd doctor found: it is not a list of checks");
  }
  return value;
}

function isCheck(value: unknown): value is DoctorCheck {
  if (typeof value !== "object" || value === null) return false;
  const { name, ok, required, detail } = value as Record<string, unknown>;
  return (
    typeof name === "string" && typeof ok === "boolean" && typeof required === "boolean" && typeof detail === "string"
  );
}
