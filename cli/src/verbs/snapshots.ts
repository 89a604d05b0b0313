import type { HistoryEntry } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { formatBytes } from "../format.js";
import { renderTable } from "../table.js";
import { renderTree } from "../tree.js";

/** `sq snapshot`, `sq history`, `sq tree`, `sq gc`: files of sandboxes over time. */
export function addSnapshots(program: Command, context: Context): void {
  const snapshot = program
    .command("snapshot")
    .description("keep a sandbox's present files under a label; prints the label")
    .argument("<id>")
    .argument("[label]", "the time in UTC, if absent")
    .option("--delete", "forget that snapshot instead")
    .addHelpText("after", "\nExamples:\n  sq snapshot box clean\n  sq snapshot box clean --delete\n");
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
    .description("remove images of snapshots that no sandbox uses")
    .option("-n, --dry-run", "only say which");
  withJson(gc).action(
    action(context, async (self) => {
      const { dryRun = false } = self.opts<{ dryRun?: true }>();
      const value = await context.client().collect({ dry_run: dryRun }, { signal: context.signal });
      printAnswer(context, self, {
        value,
        render: ({ images, bytes }) =>
          `${images.length} ${images.length === 1 ? "image" : "images"}${dryRun ? " would go" : `, ${formatBytes(bytes)}`}\n`,
      });
    }),
  );

  async function take(self: Command, id: string, label: string | undefined): Promise<void> {
    const sandbox = context.client().sandbox(id);
    if (self.opts<{ delete?: true }>().delete === true) {
      if (label === undefined) throw new UsageError("--delete needs the label of a snapshot");
      await sandbox.deleteSnapshot(label, { signal: context.signal });
      return;
    }
    const value = await sandbox.snapshot(label === undefined ? {} : { label }, { signal: context.signal });
    printAnswer(context, self, { value, render: ({ snapshot: taken }) => `${taken}\n` });
  }
}

/** One snapshot a row, oldest first. */
function renderHistory(history: readonly HistoryEntry[], colors: Colors): string {
  const rows = history.map(({ label, parent, created, size, active }) => [
    active ? { text: label, paint: colors.green } : label,
    parent ?? "",
    created,
    formatBytes(size),
  ]);
  return renderTable(["LABEL", "AFTER", "TAKEN", "SIZE"], rows, { colors, right: ["SIZE"] });
}

function drawHistory(history: readonly HistoryEntry[], colors: Colors): string {
  const nodes = history.map(({ label, parent, created, size, active }) => ({
    name: label,
    parent,
    note: `${created}  ${formatBytes(size)}${active ? "  restored" : ""}`,
  }));
  return renderTree(nodes, colors);
}
