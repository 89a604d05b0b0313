import { isSquashError } from "@squash/sdk/errors";
import { baseName } from "./bases/from-dir.js";
import { sweepLeftovers } from "./leftovers.js";
import { isSystemError, mebibytes, type CommandOutput } from "./mkbase-command.js";
import { UsageError } from "./mkbase-options.js";
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
  if (args.includes("--help") || args.includes("-h")) {
    io.out(mkmodUsage);
    return 0;
  }
  try {
    await makeModules(parseMkmod(args), io, { dataDir: settings.dataDir, signal });
    return 0;
  } catch (error) {
    if (error instanceof UsageError) {
      io.err(`squashd mkmod: ${error.message}\n\n${mkmodUsage}`);
      return 2;
    }
    if (!signal.aborted && !isSquashError(error) && !isSystemError(error)) throw error;
    io.err(`squashd mkmod: ${signal.aborted ? "interrupted, nothing was made" : (error as Error).message}\n`);
    return 1;
  }
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
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  for (const manifest of manifests) {
    const sizes = Object.entries(manifest.files).map(
      ([file, { size }]) => `${file.slice(manifest.name.length + 1)} ${mebibytes(size)}`,
    );
    io.out(`${manifest.name}  ${sizes.join(", ")}  in ${seconds} s\n`);
  }
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
