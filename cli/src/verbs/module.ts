import { basename } from "node:path";

import type { ModuleInfo } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, reportFailure, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { exitStatus, UsageError } from "../exit-status.js";
import { followJob } from "../follow-job.js";
import { formatBytes } from "../format.js";
import { commaSeparated } from "../options.js";
import { Progress } from "../progress.js";
import { renderFacts, type Cell } from "../table.js";
import { uploadOf } from "../upload-file.js";

const help = `
Examples:
  sq module show 000-base-debian
  sq module push ./100-tools.squashfs                       its name is the module's
  sq module push build/out.squashfs 100-tools --requires 000-base-debian --replace
  sq module convert 100-tools --to erofs                    the quicker one to run from
  sq module convert 200-jq --to squashfs                    the one to send to others
  sq module trust 100-tools                                 an image that was put there by hand
  sq module rm 100-tools
`;

interface PushFlags {
  readonly replace?: true;
  readonly requires?: string[];
  readonly conflicts?: string[];
}

/** `sq module`: one module of the daemon. */
export function addModule(program: Command, context: Context): void {
  const module = program
    .command("module")
    .description("show, send, convert, trust, remove a module")
    .addHelpText("after", help);

  withJson(module.command("show").description("show one module").argument("<name>")).action(
    action(context, async (self, name: string) => {
      const value = await context.client().module(name, { signal: context.signal });
      printModule(self, value);
    }),
  );

  withJson(module.command("rm").description("remove modules that no sandbox uses").argument("<name...>")).action(
    action(context, async (self, names: string[]) => {
      for (const name of names) {
        try {
          await context.client().removeModule(name, { signal: context.signal });
          if (self.opts<{ json?: true }>().json !== true) context.stdout.write(`${name}\n`);
        } catch (error) {
          if (context.signal.aborted) throw error;
          reportFailure(context, self, error);
          context.exit(exitStatus.refused);
        }
      }
    }),
  );

  withJson(module.command("trust").description("write a manifest for images as they are").argument("<name>")).action(
    action(context, async (self, name: string) => {
      const value = await context.client().trustModule(name, { signal: context.signal });
      printModule(self, value);
    }),
  );

  const convert = module
    .command("convert")
    .description("make the other image of a module")
    .argument("<name>")
    .argument("[format]", "squashfs or erofs")
    .option("--to <format>", "the same");
  withJson(convert).action(
    action(context, async (self, name: string, argument?: string) => {
      const format = self.opts<{ to?: string }>().to ?? argument;
      if (argument !== undefined && argument !== format)
        throw new UsageError("Cannot convert to two formats: one is enough");
      if (format !== "squashfs" && format !== "erofs")
        throw new UsageError(`Cannot convert to "${format ?? ""}": it must be squashfs or erofs`);
      const job = await context.client().startJob({ kind: "convert", name, format }, { signal: context.signal });
      await followJob(context, self, job);
    }),
  );

  const push = module.command("push").description("send an image to the daemon").argument("<file>").argument("[name]");
  withJson(push)
    .option("--replace", "replace a module of that name")
    .option(
      "--requires <names>",
      "modules that a stack with it must have, by commas (what the image says)",
      commaSeparated,
    )
    .option("--conflicts <names>", "modules that it must not have (what the image says)", commaSeparated)
    .action(
      action(context, async (self, file: string, name?: string) => {
        const progress = new Progress(context);
        try {
          const image = await uploadOf(file, progress, context);
          const wanted = name ?? basename(file).replace(/\.(squashfs|erofs)$/, "");
          const options = { ...self.opts<PushFlags>(), signal: context.signal };
          const value = await context.client().putModule(wanted, image, options);
          progress.end();
          printAnswer(context, self, { value, render: (taken) => `${taken.name}\n` });
        } finally {
          progress.end();
        }
      }),
    );

  function printModule(self: Command, value: ModuleInfo): void {
    printAnswer(context, self, { value, render: (found) => renderModule(found, context.colors) });
  }
}

/** How its programs are meant to be started, as far as it says. */
function defaultsOf({ defaults }: ModuleInfo): [string, Cell | null][] {
  if (defaults === null) return [];
  const { env, workdir, user, entrypoint, cmd } = defaults;
  const variables = Object.entries(env).map(([name, value]): [string, Cell] => ["env", `${name}=${value}`]);
  const words = (list: string[]): string | null => (list.length === 0 ? null : JSON.stringify(list));
  return [
    ...variables,
    ["workdir", workdir || null],
    ["user", user || null],
    ["entrypoint", words(entrypoint)],
    ["cmd", words(cmd)],
  ];
}

/** One fact a line; facts that do not apply are left out. */
function renderModule(info: ModuleInfo, colors: Colors): string {
  const facts: [string, Cell | null][] = [
    ["name", info.name],
    ["size", formatBytes(info.size)],
    ["format", `${info.format}, of ${info.formats.join(", ")}`],
    ["sha-256", info.sha256],
    ["created", info.created],
    ["source", info.source],
    ["requires", info.requires.join(", ") || null],
    ["conflicts", info.conflicts.join(", ") || null],
    ...defaultsOf(info),
    ["used by", info.used_by.join(", ") || null],
    ["problem", info.problem === null ? null : { text: info.problem, paint: colors.red }],
  ];
  return renderFacts(
    facts.filter((fact): fact is [string, Cell] => fact[1] !== null),
    colors,
  );
}
