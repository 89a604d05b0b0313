import { SquashError } from "@squash/sdk/errors";
import type { FromOciJob } from "@squash/sdk/protocol";
import { allowedPath } from "./allowed-path.js";
import { baseName } from "./bases/from-dir.js";
import { buildInChild } from "./build-child.js";
import type { BuildTask } from "./build-task.js";
import { checkWanted, putInPlace, recordDigests, type JobWorld, type Plan } from "./job-plan.js";
import { moduleFormats } from "./module-name.js";
import { nameOfImage } from "./oci/build.js";
import { parsePlatform } from "./oci/platform.js";
import { parseReference } from "./oci/reference.js";
import type { Credentials } from "./oci/registry-auth.js";

/** Modules of a container image. Throws `invalid_request`, `module_exists`. */
export async function planFromOci(request: FromOciJob, world: JobWorld): Promise<Plan> {
  const { reference = null, platform = null, insecure = false } = request;
  const source = await sourceOf(request, world.buildDirs);
  const credentials = credentialsOf(request);
  if (platform !== null) parsePlatform(platform);
  const name = baseName(request.name ?? nameOfImage(reference));
  const { replace = false, per_layer: perLayer = false, requires = [], conflicts = [] } = request;
  const wanted = { ...request, name, builder: "mkmod from-oci" };
  // modules of layers have names of their own, which are known when the layers are
  checkWanted(perLayer ? { ...wanted, replace: true } : wanted, world);
  const formats = request.formats ?? world.formats ?? moduleFormats;
  const about = { name, formats, force: replace, requires, conflicts, builder: wanted.builder };
  const image = { ...source, reference, platform, insecure, credentials, perLayer };
  const task: BuildTask = { ...about, ...image, kind: "from-oci", dataDir: world.dataDir };
  let made: readonly string[] = [name];
  return {
    module: name,
    made: () => made,
    run: async ({ signal, progress }) => {
      // whoever else makes a module of that name finds out when it is to be put in place
      const commit = (place: () => Promise<void>, each: string): Promise<void> =>
        world.catalog.reserve(each, "built", () => putInPlace({ ...wanted, name: each }, world, place));
      const manifests = await buildInChild(task, { signal, progress, commit });
      for (const manifest of manifests) await recordDigests(world, manifest);
      made = manifests.map((manifest) => manifest.name);
    },
  };
}

async function sourceOf(
  { reference, layout, archive, insecure, username }: FromOciJob,
  buildDirs: readonly string[],
): Promise<{ layout: string | null; archive: string | null }> {
  if (layout !== undefined && archive !== undefined) throw refused("layout and archive exclude each other");
  const isStored = layout !== undefined || archive !== undefined;
  if (isStored && (insecure === true || username !== undefined))
    throw refused("insecure, username and password are for registries");
  if (!isStored && reference === undefined) throw refused("it needs reference, layout or archive");
  if (!isStored) parseReference(reference ?? "");
  return {
    layout: layout === undefined ? null : await allowedPath("directory", layout, buildDirs),
    archive: archive === undefined ? null : await allowedPath("file", archive, buildDirs),
  };
}

function credentialsOf({ username, password }: FromOciJob): Credentials | null {
  if (username === undefined && password === undefined) return null;
  if (username === undefined || password === undefined) throw refused("username and password go together");
  if (username.includes(":")) throw refused("a username has no colon");
  return { username, password };
}

function refused(why: string): SquashError {
  return new SquashError("invalid_request", `Cannot make a module of an image: ${why}`);
}
