import type { Command } from "commander";

import { action } from "../action.js";
import type { Context } from "../context.js";

const help = `
Kinds:
  debian, ubuntu, alpine, void   a distribution, from its own archive
  busybox                        the smallest: one program
  from-dir                       the files of a directory

Runs on this host, needs no running daemon; arguments after the kind are passed on to "squashd mkbase".

Examples:
  sq mkbase debian
  sq mkbase from-dir ./rootfs mine
`;

/** `sq mkbase`: builds a base module. */
export function addMkbase(program: Command, context: Context): void {
  program
    .command("mkbase")
    .description("build a base module on this host")
    .usage("<kind> [arguments...]")
    .argument("<kind>")
    .argument("[arguments...]")
    .passThroughOptions()
    .addHelpText("after", help)
    .action(action(context, mkbase));

  async function mkbase(_: Command, kind: string, rest: string[]): Promise<void> {
    context.exit(await context.squashd.run(["mkbase", kind, ...rest]));
  }
}
