import type { HistoryEntry, Sandbox } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { formatBytes } from "../format.js";
import { renderTable } from "../table.js";
import { renderTree } from "../tree.js";

const examples = `
Examples:
  sq snapshot box clean
  sq snapshot box clean --pin
  sq snapshot box clean --delete
`;

interface SnapshotFlags {
  readonly by?: string;
  readonly pin?: true;
  readonly unpin?: true;
  readonly wait?: true;
  readonly delete?: true;
}

/** `sq snapshot`, `sq history`, `sq tree`, `sq gc`: files of sandboxes over time. */
export function addSnapshots(program: Command, context: Context): void {
  const snapshot = program
    .command("snapshot")
    .description("keep a sandbox's present files under a label; prints the label")
    .argument("<id>")
    .argument("[label]", "the time in UTC, if absent")
    .option("--by <name>", "who takes it, for the history (the sandbox's owner)")
    .option("--pin", "keep it whatever the retention says; one that there is already is pinned")
    .option("--unpin", "let the retention decide on that snapshot again")
    .option("--wait", "until the bucket has it")
    .option("--delete", "forget that snapshot instead")
    .addHelpText("after", examples);
  withJson(snapshot).action(action(context, take));

  const history = program.command("history").description("list a sandbox's snapshots").argument("<id>");
  withJson(history).action(
    action(context, async (self, id: string) => {
      const value = await context.client().sandbox(id).history({ signal: context.signal });
      printAnswer(context, self, { value, render: (found) => renderHistory(found, context.colors) });
    }),
  );

  const tree = program.command("tree").description("draw a sandbox's snapshots as they follow one another");
  withJson(tree.argument("<id>")).action(
    action(context, async (self, id: string) => {
      const value = await context.client().sandbox(id).history({ signal: context.signal });
      printAnswer(context, self, { value, render: (found) => drawHistory(found, context.colors) });
    }),
  );

  const gc = program
    .command("gc")
    .description("remove images of snapshots that no sandbox uses, and what caches and broken-off work have left")
    .option("-n, --dry-run", "only say what");
  withJson(gc).action(
    action(context, async (self) => {
      const { dryRun = false } = self.opts<{ dryRun?: true }>();
      const value = await context.client().collect({ dry_run: dryRun }, { signal: context.signal });
      printAnswer(context, self, {
        value,
        render: ({ images, files, bytes }) =>
          `${count(images, "image")}, ${count(files, "file")}, ${formatBytes(bytes)}${dryRun ? " would go" : ""}\n`,
      });
    }),
  );

  async function take(self: Command, id: string, label: string | undefined): Promise<void> {
    const sandbox = context.client().sandbox(id);
    const flags = self.opts<SnapshotFlags>();
    const { signal } = context;
    const chosen = (["pin", "unpin", "delete"] as const).filter((name) => flags[name] === true);
    if (chosen.length > 1) throw new UsageError(`--${chosen.join(" and --")} contradict each other`);
    if (chosen[0] !== undefined && chosen[0] !== "pin" && label === undefined)
      throw new UsageError(`--${chosen[0]} needs the label of a snapshot`);
    if (flags.delete === true && label !== undefined) return sandbox.deleteSnapshot(label, { signal });
    if (label !== undefined && (flags.unpin === true || (flags.pin === true && (await isTaken(sandbox, label))))) {
      const changed = await sandbox.pinSnapshot(label, flags.pin === true, { signal });
      printAnswer(context, self, { value: changed, render: (entry) => `${entry.label}\n` });
      return;
    }
    const request = {
      ...(label === undefined ? {} : { label }),
      ...(flags.by === undefined ? {} : { by: flags.by }),
      ...(flags.pin === true ? { pinned: true } : {}),
      origin: "cli" as const,
    };
    const value = await sandbox.snapshot(request, { signal, ...(flags.wait === true && { wait: "durable" as const }) });
    printAnswer(context, self, { value, render: ({ snapshot: taken }) => `${taken}\n` });
  }

  async function isTaken(sandbox: Sandbox, label: string): Promise<boolean> {
    return (await sandbox.history({ signal: context.signal })).some((entry) => entry.label === label);
  }
}

function count(things: readonly unknown[], name: string): string {
  return `${things.length} ${name}${things.length === 1 ? "" : "s"}`;
}

/** One snapshot a row, oldest first. */
function renderHistory(history: readonly HistoryEntry[], colors: Colors): string {
  const rows = history.map((entry) => [
    entry.active ? { text: entry.label, paint: colors.green } : entry.label,
    entry.parent ?? "",
    entry.created,
    formatBytes(entry.size),
    formatBytes(entry.total_size),
    entry.by ?? "",
    marksOf(entry).join(", "),
  ]);
  const right = ["SIZE", "TOTAL"];
  return renderTable(["LABEL", "AFTER", "TAKEN", "SIZE", "TOTAL", "BY", ""], rows, { colors, right });
}

function drawHistory(history: readonly HistoryEntry[], colors: Colors): string {
  const nodes = history.map((entry) => {
    const { label, parent, created, size, total_size: total } = entry;
    const sizes = total === size ? formatBytes(size) : `${formatBytes(size)} of ${formatBytes(total)}`;
    const by = entry.by === null ? [] : [`by ${entry.by}${entry.origin === "cli" ? " (sq)" : ""}`];
    return { name: label, parent, note: [created, sizes, ...by, ...marksOf(entry)].join("  ") };
  });
  return renderTree(nodes, colors);
}

function marksOf({ active, pinned }: HistoryEntry): string[] {
  return [...(active ? ["restored"] : []), ...(pinned ? ["pinned"] : [])];
}
