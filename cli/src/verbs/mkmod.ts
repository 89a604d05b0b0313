import { resolve } from "node:path";

import type { JobInfo, ModuleFormat } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { followJob } from "../follow-job.js";
import { commaSeparated } from "../options.js";
import { Progress } from "../progress.js";
import { uploadOf } from "../upload-file.js";

const help = `
The daemon makes it, as a job that is followed until it is over; Ctrl-C cancels it.

Examples:
  sq mkmod from-tar ./tools.tar.gz 100-tools
  sq mkmod from-tar https://example.org/tools.tar.xz 100-tools --sha256 HEX
  sq mkmod from-dir /srv/trees/tools 100-tools         on the daemon's machine, below SQUASH_BUILD_DIRS
`;

const imageHelp = `
Arguments are passed on to "squashd mkmod from-oci".

Examples:
  sq mkmod from-oci python:3.12-slim
  sq mkmod from-oci registry.example:5000/team/tool:1.2 --per-layer
  sq mkmod from-oci --archive saved.tar --name mine
`;

interface MakeFlags {
  readonly replace?: true;
  readonly requires?: string[];
  readonly conflicts?: string[];
  readonly format?: string;
  readonly sha256?: string;
  readonly detach?: true;
}

/** `sq mkmod`: modules that the daemon makes, and of container images, which this host makes without one. */
export function addMkmod(program: Command, context: Context): void {
  const mkmod = program.command("mkmod").description("let the daemon make a module").addHelpText("after", help);

  const fromDir = mkmod
    .command("from-dir")
    .description("of the files of a directory")
    .argument("<path>")
    .argument("<name>");
  withMakeFlags(fromDir)
    .option("--format <format>", "squashfs, erofs or both (both)")
    .action(
      action(context, async (self, path: string, name: string) => {
        const { flags, common } = read(self);
        const body = { kind: "from-dir" as const, path: resolve(path), name, ...common, ...formatsOf(flags.format) };
        await finish(self, await context.client().startJob(body, { signal: context.signal }));
      }),
    );

  const fromTar = mkmod
    .command("from-tar")
    .description("of the files of a tar file")
    .argument("<file or address>")
    .argument("<name>");
  withMakeFlags(fromTar)
    .option("--sha256 <hex>", "what it must be, where it is an address")
    .action(
      action(context, async (self, source: string, name: string) => {
        const { flags, common } = read(self);
        await finish(self, await startTar({ source, name }, flags, common));
      }),
    );

  mkmod
    .command("from-oci")
    .description("of a container image, on this host; needs no running daemon")
    .usage("<reference> [--layout DIR | --archive FILE] [options...]")
    .argument("[arguments...]")
    .passThroughOptions()
    .allowUnknownOption()
    .addHelpText("after", imageHelp)
    .action(
      action(context, async (_: Command, rest: string[]) => {
        context.exit(await context.squashd.run(["mkmod", "from-oci", ...rest]));
      }),
    );

  async function startTar(
    { source, name }: { source: string; name: string },
    flags: MakeFlags,
    common: Omit<MakeFlags, "format" | "sha256" | "detach">,
  ): Promise<JobInfo> {
    const client = context.client();
    if (/^https?:\/\//.test(source)) {
      if (flags.sha256 === undefined)
        throw new UsageError("Cannot use an address without --sha256, what the file must be");
      const body = { kind: "from-tar" as const, url: source, sha256: flags.sha256, name, ...common };
      return client.startJob(body, { signal: context.signal });
    }
    if (flags.sha256 !== undefined)
      throw new UsageError("Cannot use --sha256 with a file: it is taken of the file itself");
    const progress = new Progress(context);
    try {
      const tar = await uploadOf(source, progress, context);
      return await client.startTarJob(name, tar, { ...common, signal: context.signal });
    } finally {
      progress.end();
    }
  }

  async function finish(self: Command, job: JobInfo): Promise<void> {
    if (self.opts<MakeFlags>().detach !== true) return followJob(context, self, job);
    printAnswer(context, self, { value: job, render: ({ id }) => `${id}\n` });
  }
}

function withMakeFlags(command: Command): Command {
  return withJson(command)
    .option("--replace", "replace a module of that name")
    .option("--requires <names>", "modules that a stack with it must have, separated by commas", commaSeparated)
    .option("--conflicts <names>", "modules that it must not have", commaSeparated)
    .option("--detach", "print the id of the job instead of following it");
}

function read(self: Command): { flags: MakeFlags; common: Omit<MakeFlags, "format" | "sha256" | "detach"> } {
  const flags = self.opts<MakeFlags>();
  const { replace, requires, conflicts } = flags;
  return {
    flags,
    common: { ...(replace && { replace }), ...(requires && { requires }), ...(conflicts && { conflicts }) },
  };
}

function formatsOf(format: string | undefined): { formats?: ModuleFormat[] } {
  if (format === undefined || format === "both") return {};
  if (format !== "squashfs" && format !== "erofs")
    throw new UsageError(`Cannot make format "${format}": it must be squashfs, erofs or both`);
  return { formats: [format] };
}
