import { baseName } from "./bases/from-dir.js";
import { runBuilder, tellMade, type CommandOutput } from "./builder-command.js";
import { sweepLeftovers } from "./leftovers.js";
import { mkmodUsage, parseMkmod, type MkmodRequest } from "./mkmod-options.js";
import { BlobCache } from "./oci/blob-cache.js";
import { buildFromImage } from "./oci/build.js";
import type { LocalImage } from "./oci/image.js";
import { hostPlatform, parsePlatform, type Platform } from "./oci/platform.js";
import { parseReference } from "./oci/reference.js";
import { readCredentials } from "./oci/registry-auth.js";
import { pullImage } from "./oci/registry-source.js";
import { filesInArchive, filesInDirectory } from "./oci/stored-files.js";
import { loadStored } from "./oci/stored-image.js";
import { refuseExisting } from "./pack.js";
import { runTool } from "./run-tool.js";

const maxArchiveBytes = 32 * 1024 ** 3;

interface Surroundings {
  readonly dataDir: string;
  readonly signal: AbortSignal;
  readonly progress: (line: string) => void;
}

/** `squashd mkmod`: builds modules. Returns the exit status: 0 done, 1 failed, 2 wrong usage. */
export async function mkmodCommand(
  args: readonly string[],
  io: CommandOutput,
  settings: { readonly dataDir: string },
  signal: AbortSignal,
): Promise<number> {
  return runBuilder({ verb: "mkmod", usage: mkmodUsage }, { args, io, signal }, () =>
    makeModules(parseMkmod(args), io, { dataDir: settings.dataDir, signal }),
  );
}

async function makeModules(
  request: MkmodRequest,
  io: CommandOutput,
  { dataDir, signal }: { readonly dataDir: string; readonly signal: AbortSignal },
): Promise<void> {
  const started = performance.now();
  const { formats, force, perLayer } = request;
  const name = request.name === null ? null : baseName(request.name);
  if (name !== null && !force) await refuseExisting(dataDir, name); // before minutes of work
  const platform = request.platform === null ? hostPlatform() : parsePlatform(request.platform);
  for (const path of await sweepLeftovers(dataDir)) io.err(`removed ${path}, which a killed mkbase had left\n`);
  const around = { dataDir, signal, progress: (line: string): void => io.err(`${line} …\n`) };
  const load = (scratch: string): Promise<LocalImage> => loadFor(request, platform, { ...around, scratch });
  const options = { ...around, name, formats, force, perLayer, builder: "mkmod from-oci" };
  const manifests = await buildFromImage(load, options);
  tellMade(io, manifests, started);
}

async function loadFor(
  request: MkmodRequest,
  platform: Platform,
  around: Surroundings & { readonly scratch: string },
): Promise<LocalImage> {
  const { reference, layout, archive } = request;
  const { dataDir, signal, scratch } = around;
  if (layout !== null) return loadStored(filesInDirectory(layout), { platform, reference, signal });
  if (archive !== null) {
    around.progress("reading the archive");
    const files = await filesInArchive(archive, { scratch, run: runTool, limit: maxArchiveBytes, signal });
    return loadStored(files, { platform, reference, signal });
  }
  const wanted = parseReference(reference ?? "");
  const credentials = request.authfile === null ? null : await readCredentials(request.authfile, wanted.registry);
  const cache = new BlobCache(dataDir);
  await cache.prune();
  return pullImage(wanted, { ...around, platform, cache, insecure: request.insecure, credentials });
}
