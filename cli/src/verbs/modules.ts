import type { ModuleInfo } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { formatBytes } from "../format.js";
import { renderTable, type Cell } from "../table.js";

/** `sq modules`: what sandboxes can be made of. */
export function addModules(program: Command, context: Context): void {
  const command = program.command("modules").description("list the modules that sandboxes can be made of");
  withJson(command).action(action(context, modules));

  async function modules(self: Command): Promise<void> {
    const value = await context.client().modules({ signal: context.signal });
    printAnswer(context, self, { value, render: (found) => renderModules(found, context.colors) });
  }
}

/** One module a row; what cannot be used is red. */
function renderModules(modules: readonly ModuleInfo[], colors: Colors): string {
  const rows = modules.map(({ name, size, formats, location, used_by, source, problem }): Cell[] => [
    problem === null ? name : { text: name, paint: colors.red },
    location === "remote" ? "" : formatBytes(size),
    formats.join(","),
    location,
    String(used_by.length),
    problem === null ? (source ?? "") : "cannot be used; see sq module show",
  ]);
  const head = ["NAME", "SIZE", "FORMATS", "LOCATION", "USED", "SOURCE"];
  return renderTable(head, rows, { colors, right: ["SIZE", "USED"] });
}
