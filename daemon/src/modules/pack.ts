import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { lstat, mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { SquashError } from "@squash/sdk/errors";
import { checkModuleName, moduleFormats, type ModuleFormat } from "./module-name.js";
import { Cleanup } from "./cleanup.js";
import { makeWorkshop, takeFile, type Workshop } from "./confined-tool.js";
import { makeErofs, surveyTree } from "./erofs-image.js";
import type { ImageFile, ModuleManifest } from "./manifest.js";
import { placeModule, type PlacedImage } from "./placing.js";
import { aboutOf, type ModuleAbout } from "./module-about.js";
import { appendTrailer } from "./module-trailer.js";
import type { TarFacts } from "./bases/tar-check.js";
import { runTool, type RunTool } from "./run-tool.js";
import { surveySquashfs, unpackBounds } from "./squashfs-survey.js";

export type { ModuleManifest } from "./manifest.js";

const deadlineMs = 30 * 60_000;
/** zstd's level is the default, 15: sqfstar 4.5 takes the number behind -Xcompression-level for the image's name */
const compression = ["-comp", "zstd", "-b", "128K"];
const squashfsOptions = [...compression, "-reproducible", "-quiet", "-no-progress", "-exit-on-error"];

/** How and where a module is made; what it says about itself is for the manifest, and for the images. */
export interface PackOptions extends ModuleAbout {
  readonly dataDir: string;
  readonly formats: readonly ModuleFormat[];
  /** whether a module of that name may be replaced; @default false */
  readonly force?: boolean;
  /** puts the finished images of a module in place by calling `place`; for who has to keep others off meanwhile */
  readonly commit?: (place: () => Promise<void>, name: string) => Promise<void>;
  readonly signal?: AbortSignal;
  readonly run?: RunTool;
  /** whether overlayfs's whiteouts are kept, which are devices; @default false */
  readonly keepWhiteouts?: boolean;
}

/** Throws `build_failed` when there is a module of that name, `invalid_request` when there cannot be. */
export async function refuseExisting(dataDir: string, name: string): Promise<void> {
  checkModuleName(name);
  for (const format of moduleFormats) {
    const path = join(dataDir, "modules", `${name}.${format}`);
    const exists = await lstat(path).then(
      () => true,
      (error: NodeJS.ErrnoException) => (error.code === "ENOENT" ? false : Promise.reject(error)),
    );
    if (exists)
      throw new SquashError("build_failed", `Cannot make module "${name}": "${path}" exists, --force replaces it`);
  }
}

/**
 * Packs a directory as a module. Its images appear whole or not at all, the manifest last; the same tree gives the same bytes. Devices and
 * sockets are left out. Throws `build_failed`, `cancelled`, `invalid_request`.
 */
export async function packDirectory(directory: string, options: PackOptions): Promise<ModuleManifest> {
  const { name, signal, run = runTool } = options;
  return publish(options, async (format, draft) => {
    if (format === "erofs") {
      const tree = { directory, name, facts: await surveyTree(directory, signal) };
      return makeErofs(run, tree, draft, { deadlineMs, ...withSignal(signal) });
    }
    const noDevices = "exclude@type(b)||type(c)||type(s)";
    const argv = [
      directory,
      draft,
      "-noappend",
      "-no-exports",
      ...squashfsOptions,
      "-mkfs-time",
      "0",
      "-action",
      noDevices,
    ];
    await run(["mksquashfs", ...argv], {
      op: "pack squashfs image of",
      target: name,
      deadlineMs,
      ...withSignal(signal),
    });
  });
}

/**
 * Packs an uncompressed tar file as a module, without its devices. Never unpacks the tar file: the tree for the erofs image is taken from
 * the squashfs one. What reads the tar file and the image is confined. `scratch` must be a directory that nobody else can enter. The same
 * tar file gives the same bytes, unless its times lie in the future. Throws like `packDirectory`.
 */
export async function packTar(
  tar: { readonly path: string; readonly facts: TarFacts },
  scratch: string,
  options: PackOptions,
): Promise<ModuleManifest> {
  const { name, signal } = options;
  const workshop = await makeWorkshop(scratch, options);
  const { work, run, runTrusted } = workshop;
  const limits = { deadlineMs, ...withSignal(signal) };
  const image = await squashfsOfTar(workshop, tar, options);
  return await publish(options, async (format, draft) => {
    if (format === "squashfs") return takeFile(image, draft, signal);
    // nobody but root may set what overlayfs marks directories with
    const tool = options.keepWhiteouts === true ? runTrusted : run;
    return erofsOfSquashfs({ work, run: tool }, { image, name }, draft, limits);
  });
}

/**
 * Packs a tar file as a squashfs image, which is then in the workshop: the caller's to take. `rootMode` is octal, @default 0755. Throws
 * `build_failed`, `cancelled`.
 */
export async function squashfsOfTar(
  { work, run }: Pick<Workshop, "work" | "run">,
  tar: { readonly path: string; readonly facts: TarFacts; readonly rootMode?: string },
  { name, signal }: { readonly name: string; readonly signal?: AbortSignal },
): Promise<string> {
  const image = join(work, "image.squashfs");
  const { path, facts, rootMode = "0755" } = tar;
  await using file = await open(path, "r");
  // sqfstar passes over the entry of the root itself, and would make it writable for everybody
  await run(["sqfstar", ...squashfsOptions, "-root-mode", rootMode, image, ...facts.devices], {
    op: "pack tar file as",
    target: name,
    deadlineMs,
    stdin: file.fd,
    // what has no entry, such as the root, would get the time of the packing; this caps all times at the latest of the tar file
    env: { SOURCE_DATE_EPOCH: String(facts.latestMtimeS) },
    ...withSignal(signal),
  });
  return image;
}

/**
 * Makes an erofs image with the files of a squashfs one, without devices. Both are worked on by confined tools only. Throws `build_failed` also
 * where there is no room for what the squashfs image unpacks to.
 */
export async function erofsOfSquashfs(
  { work, run }: Pick<Workshop, "work" | "run">,
  source: { readonly image: string; readonly name: string },
  draft: string,
  options: { readonly deadlineMs: number; readonly signal?: AbortSignal },
): Promise<void> {
  const { image, name } = source;
  const excluded = await surveySquashfs(run, { ...source, bounds: await unpackBounds(work) }, options);
  const directory = join(work, "tree");
  const without = excluded.length > 0 ? ["-excludes"] : [];
  const argv = ["-quiet", "-no-progress", "-strict-errors", ...without, "-dest", directory, image, ...excluded];
  await run(["unsquashfs", ...argv], { op: "unpack squashfs image of", target: name, ...options });
  const target = join(work, "image.erofs");
  const facts = await surveyTree(directory, options.signal, { keepWhiteouts: true });
  await makeErofs(run, { directory, name, facts }, target, options);
  await takeFile(target, draft, options.signal);
}

/**
 * Makes a module of the images that `make` writes: they appear whole or not at all, the manifest last, what it says of the module in each of
 * them. Squashfs comes first: the catalog takes the erofs image only when it is not older. Throws like `packDirectory`.
 */
export async function publish(
  options: PackOptions,
  make: (format: ModuleFormat, draft: string) => Promise<void>,
): Promise<ModuleManifest> {
  const { dataDir, name, formats } = options;
  const directory = join(dataDir, "modules");
  await mkdir(directory, { recursive: true });
  if (options.force !== true) await refuseExisting(dataDir, name);
  await using cleanup = new Cleanup();
  const drafts: PlacedImage[] = [];
  const files: Record<string, ImageFile> = {};
  for (const format of moduleFormats.filter((each) => formats.includes(each))) {
    const file = `${name}.${format}`;
    const draft = draftPath(directory, file);
    cleanup.defer(() => rm(draft, { force: true }));
    await make(format, draft);
    await appendTrailer(draft, options);
    files[file] = await finish(draft);
    drafts.push({ draft, file });
  }
  options.signal?.throwIfAborted();
  if (options.force !== true) await refuseExisting(dataDir, name);
  const manifest: ModuleManifest = {
    schema: 1,
    built_at: new Date().toISOString(),
    ...aboutOf(options),
    files,
  };
  const { commit = (place: () => Promise<void>) => place() } = options;
  await commit(() => placeModule(directory, manifest, drafts), name);
  return manifest;
}

/** A name for a draft of a module's file, which tells the sweeper who makes it. */
export function draftPath(directory: string, file: string): string {
  return join(directory, `.${file}.${process.pid}-${randomBytes(6).toString("hex")}`);
}

/** Makes a draft durable and readable, and measures it. */
export async function finish(draft: string): Promise<ImageFile> {
  await using file = await open(draft, "r+");
  await file.chmod(0o644);
  await file.sync();
  const hash = createHash("sha256");
  await pipeline(createReadStream(draft), hash);
  return { size: (await file.stat()).size, sha256: hash.digest("hex") };
}

function withSignal(signal: AbortSignal | undefined): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
