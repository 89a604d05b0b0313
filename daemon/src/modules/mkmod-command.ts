import { baseName } from "./bases/from-dir.js";
import { runBuilder, tellMade, type CommandOutput } from "./builder-command.js";
import { sweepLeftovers } from "./leftovers.js";
import { mkmodUsage, parseMkmod, type MkmodRequest } from "./mkmod-options.js";
import { buildFromImage } from "./oci/build.js";
import type { LocalImage } from "./oci/image.js";
import { loadImageFrom } from "./oci/load.js";
import { hostPlatform, parsePlatform } from "./oci/platform.js";
import { parseReference } from "./oci/reference.js";
import { readCredentials } from "./oci/registry-auth.js";
import { refuseExisting } from "./pack.js";

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
  const { reference, layout, archive, insecure, authfile } = request;
  const load = async (scratch: string): Promise<LocalImage> => {
    const registry = layout === null && archive === null ? parseReference(reference ?? "").registry : null;
    const credentials = authfile === null || registry === null ? null : await readCredentials(authfile, registry);
    const source = { reference, layout, archive, insecure, platform, credentials };
    return loadImageFrom(source, { ...around, scratch });
  };
  const options = { ...around, name, formats, force, perLayer, builder: "mkmod from-oci" };
  const manifests = await buildFromImage(load, options);
  tellMade(io, manifests, started);
}
