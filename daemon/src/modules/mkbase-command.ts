import type { BaseOptions } from "./bases/base.js";
import { buildBusybox } from "./bases/busybox.js";
import { buildDebian } from "./bases/debian.js";
import { baseName, buildFromDirectory } from "./bases/from-dir.js";
import { buildFromTarball } from "./bases/tarball.js";
import { mebibytes, runBuilder, tellMade, type CommandOutput } from "./builder-command.js";
import { DirectoryCatalog } from "./catalog.js";
import { sweepLeftovers } from "./leftovers.js";
import { mkbaseUsage, parseMkbase, type BaseKind, type MkbaseRequest } from "./mkbase-options.js";
import { refuseExisting, type ModuleManifest } from "./pack.js";

/** `squashd mkbase`: builds a base module. Returns the exit status: 0 done, 1 failed, 2 wrong usage. */
export async function mkbaseCommand(
  args: readonly string[],
  io: CommandOutput,
  settings: { readonly dataDir: string },
  signal: AbortSignal,
): Promise<number> {
  return runBuilder({ verb: "mkbase", usage: mkbaseUsage }, { args, io, signal }, async () => {
    const request = parseMkbase(args);
    if (isBaseRequest(request)) await buildBase(request, io, { dataDir: settings.dataDir, signal });
    else await listBases(io, settings.dataDir);
  });
}

type BaseRequest = MkbaseRequest & { readonly kind: Exclude<BaseKind, "list"> };

function isBaseRequest(request: MkbaseRequest): request is BaseRequest {
  return request.kind !== "list";
}

async function buildBase(
  request: BaseRequest,
  io: CommandOutput,
  settings: { readonly dataDir: string; readonly signal: AbortSignal },
): Promise<void> {
  const started = performance.now();
  const name = nameOf(request);
  if (!request.force) await refuseExisting(settings.dataDir, name); // before minutes of work
  for (const path of await sweepLeftovers(settings.dataDir))
    io.err(`removed ${path}, which a killed mkbase had left\n`);
  const progress = (line: string): void => io.err(`${line} …\n`);
  const { formats, force, requires, conflicts } = request;
  const manifest = await build(request, {
    ...settings,
    name,
    formats,
    force,
    requires,
    conflicts,
    builder: `mkbase ${request.kind}`,
    progress,
  });
  tellMade(io, [manifest], started);
}

function build(request: BaseRequest, options: BaseOptions): Promise<ModuleManifest> {
  const [operand] = request.operands;
  switch (request.kind) {
    case "busybox":
      return buildBusybox(options);
    case "debian":
      return buildDebian({
        ...options,
        ...(operand === undefined ? {} : { release: operand }),
        ...(request.packages === null ? {} : { packages: request.packages }),
      });
    case "from-dir":
      return buildFromDirectory(operand ?? "", options);
    case "alpine":
    case "ubuntu":
    case "void":
      return buildFromTarball({ ...options, url: request.url ?? "", sha256: request.sha256 ?? "" });
  }
}

function nameOf({ kind, name, operands }: MkbaseRequest): string {
  if (kind === "from-dir") return baseName(name ?? operands[1] ?? "");
  return name === null ? `000-base-${kind}` : baseName(name);
}

async function listBases(io: CommandOutput, dataDir: string): Promise<void> {
  const modules = await new DirectoryCatalog(dataDir, { defaultLayers: [] }).list();
  const bases = modules.filter(({ name }) => name.startsWith("000-"));
  if (bases.length === 0) io.err('There is no base module yet; make one with "sq mkbase debian"\n');
  for (const { name, format, size } of bases) io.out(`${name}  ${format} ${mebibytes(size)}\n`);
}
