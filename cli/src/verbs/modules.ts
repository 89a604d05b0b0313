import type { ModuleInfo } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { formatBytes } from "../format.js";
import { renderTable } from "../table.js";

/** `sq modules`: what sandboxes can be made of. */
export function addModules(program: Command, context: Context): void {
  const command = program.command("modules").description("list the modules that sandboxes can be made of");
  withJson(command).action(action(context, modules));

  async function modules(self: Command): Promise<void> {
    const value = await context.client().modules({ signal: context.signal });
    printAnswer(context, self, { value, render: (found) => renderModules(found, context.colors) });
  }
}

/** One module a row. */
function renderModules(modules: readonly ModuleInfo[], colors: Colors): string {
  const rows = modules.map(({ name, size, format, location }) => {
    return [name, location === "remote" ? "" : formatBytes(size), format, location];
  });
  return renderTable(["NAME", "SIZE", "FORMAT", "LOCATION"], rows, { colors, right: ["SIZE"] });
}
