import { resolve } from "node:path";

import type { FromOciJob, JobInfo, ModuleFormat } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { followJob } from "../follow-job.js";
import { commaSeparated, moduleFormats } from "../options.js";
import { Progress } from "../progress.js";
import { readLogin, registryOf } from "../registry-login.js";
import { uploadOf } from "../upload-file.js";

const help = `
The daemon makes it, as a job that is followed until it is over; Ctrl-C cancels it.

Examples:
  sq mkmod from-tar ./tools.tar.gz 100-tools
  sq mkmod from-tar https://example.org/tools.tar.xz 100-tools --sha256 HEX
  sq mkmod from-dir /srv/trees/tools 100-tools         on the daemon's machine, below SQUASH_BUILD_DIRS
  sq mkmod from-oci python:3.12-slim
  sq mkmod from-sandbox box 900-mine
  sq mkmod preset git
`;

const imageHelp = `
Prints the names of the modules, the lowest first. Without a daemon, "squashd mkmod from-oci" does the same.

Examples:
  sq mkmod from-oci python:3.12-slim
  sq mkmod from-oci registry.example:5000/team/tool:1.2 --per-layer
  sq mkmod from-oci --archive saved.tar --name mine
`;

const presetHelp = `
Examples:
  sq mkmod preset python3
  sq mkmod preset git --base 000-base-alpine
  sq mkmod preset packages --packages ffmpeg,imagemagick --name 200-media
`;

interface MakeFlags {
  readonly replace?: true;
  readonly requires?: string[];
  readonly conflicts?: string[];
  readonly format?: string;
  readonly sha256?: string;
  readonly detach?: true;
}

interface ImageFlags {
  readonly name?: string;
  readonly layout?: string;
  readonly archive?: string;
  readonly perLayer?: true;
  readonly platform?: string;
  readonly authfile?: string;
  readonly insecure?: true;
}

interface SandboxFlags {
  readonly snapshot?: string;
  readonly all?: true;
}

interface PresetFlags {
  readonly name?: string;
  readonly base?: string;
  readonly packages?: string[];
  readonly allowNet?: string[];
}

/** `sq mkmod`: modules that the daemon makes. */
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

  const fromOci = mkmod
    .command("from-oci")
    .description("of a container image")
    .usage("<reference> [--layout DIR | --archive FILE] [options]")
    .argument("[reference]", "[registry[:port]/]repository[:tag][@digest], or what the image is called in there");
  withMakeFlags(fromOci)
    .option("--name <name>", "of the module; otherwise 000-<repository>-<tag>")
    .option("--layout <directory>", "an OCI layout, on the daemon's machine below SQUASH_BUILD_DIRS")
    .option("--archive <file>", "what docker save wrote, on the daemon's machine below SQUASH_BUILD_DIRS")
    .option("--per-layer", "make a module of each layer, to be stacked in their order")
    .option("--platform <os/arch>", "instead of the daemon's machine's, such as linux/arm64")
    .option("--authfile <file>", "user names and passwords, in the form of docker's config.json")
    .option("--insecure", "allow plain HTTP; without it only for registries on the daemon's machine")
    .option("--format <format>", "squashfs, erofs or both (both)")
    .addHelpText("after", imageHelp)
    .action(
      action(context, async (self, reference?: string) => {
        const { flags, common } = read(self);
        const job = await imageJob(reference, self.opts<ImageFlags>());
        const body = { ...job, ...common, ...formatsOf(flags.format) };
        await finish(self, await context.client().startJob(body, { signal: context.signal }));
      }),
    );

  const fromSandbox = mkmod
    .command("from-sandbox")
    .description("of what a sandbox has written; it goes on")
    .argument("<id>")
    .argument("<name>");
  withMakeFlags(fromSandbox)
    .option("--snapshot <label>", "of a snapshot of it instead of now")
    .option("--all", "also what belongs to the machine, caches and logs")
    .option("--format <format>", "squashfs, erofs or both (both)")
    .action(
      action(context, async (self, sandbox: string, name: string) => {
        const { flags, common } = read(self);
        const { snapshot, all } = self.opts<SandboxFlags>();
        const wanted = { ...(snapshot !== undefined && { snapshot }), ...(all && { all }) };
        const body = { kind: "from-sandbox" as const, sandbox, name, ...wanted, ...common, ...formatsOf(flags.format) };
        await finish(self, await context.client().startJob(body, { signal: context.signal }));
      }),
    );

  const preset = mkmod
    .command("preset")
    .description("of a distribution's packages, installed in a sandbox that is made for it")
    .argument(
      "<preset>",
      "python3, nodejs, golang, openjdk, rust, ruby, perl, gcc, build-tools, git, sqlite, or packages",
    );
  withMakeFlags(preset)
    .option("--name <name>", "of the module; otherwise the preset's own")
    .option("--base <module>", "what it is installed on; otherwise what sandboxes get")
    .option("--packages <names>", "instead of the preset's own, separated by commas", commaSeparated)
    .option("--allow-net <entries>", "what may be reached instead of the base's package servers", commaSeparated)
    .option("--format <format>", "squashfs, erofs or both (both)")
    .addHelpText("after", presetHelp)
    .action(
      action(context, async (self, name: string) => {
        const { flags, common } = read(self);
        const { name: module, base, packages, allowNet } = self.opts<PresetFlags>();
        const wanted = {
          ...(module !== undefined && { name: module }),
          ...(base !== undefined && { base }),
          ...(packages && { packages }),
          ...(allowNet && { allow_net: allowNet }),
        };
        const body = { kind: "preset" as const, preset: name, ...wanted, ...common, ...formatsOf(flags.format) };
        await finish(self, await context.client().startJob(body, { signal: context.signal }));
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
    if (self.opts<MakeFlags>().detach === true)
      printAnswer(context, self, { value: job, render: ({ id }) => `${id}\n` });
    else await followJob(context, self, job);
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

/** The request, with the password for the registry where the file has one. */
async function imageJob(reference: string | undefined, flags: ImageFlags): Promise<FromOciJob> {
  const { name, layout, archive, perLayer, platform, authfile, insecure } = flags;
  const isStored = layout !== undefined || archive !== undefined;
  if (!isStored && reference === undefined)
    throw new UsageError("Cannot make a module of an image without its reference, --layout or --archive");
  if (isStored && authfile !== undefined) throw new UsageError("Cannot use --authfile but for registries");
  const login = authfile === undefined ? null : await readLogin(authfile, registryOf(reference ?? ""));
  return {
    kind: "from-oci",
    ...(reference !== undefined && { reference }),
    ...(name !== undefined && { name }),
    ...(layout !== undefined && { layout: resolve(layout) }),
    ...(archive !== undefined && { archive: resolve(archive) }),
    ...(perLayer && { per_layer: true }),
    ...(platform !== undefined && { platform }),
    ...(insecure && { insecure: true }),
    ...login,
  };
}

function formatsOf(format: string | undefined): { formats?: ModuleFormat[] } {
  return format === undefined || format === "both" ? {} : { formats: moduleFormats(format) };
}
