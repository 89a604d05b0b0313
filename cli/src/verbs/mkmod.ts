import type { Command } from "commander";

import { action } from "../action.js";
import type { Context } from "../context.js";

const help = `
Kinds:
  from-oci   a container image: from a registry, --layout or --archive

Runs on this host, needs no running daemon; arguments after the kind are passed on to "squashd mkmod".

Examples:
  sq mkmod from-oci python:3.12-slim
  sq mkmod from-oci registry.example:5000/team/tool:1.2 --per-layer
  sq mkmod from-oci --archive saved.tar --name mine
`;

/** `sq mkmod`: builds modules. */
export function addMkmod(program: Command, context: Context): void {
  program
    .command("mkmod")
    .description("build modules on this host, of a container image")
    .usage("<kind> [arguments...]")
    .argument("<kind>")
    .argument("[arguments...]")
    .passThroughOptions()
    .addHelpText("after", help)
    .action(action(context, mkmod));

  async function mkmod(_: Command, kind: string, rest: string[]): Promise<void> {
    context.exit(await context.squashd.run(["mkmod", kind, ...rest]));
  }
}
