import { lstat, open, readFile, readdir, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { isSquashError } from "@squash/sdk/errors";
import { writeAtomically } from "../store/atomic-file.js";
import { parseManifest, writeManifest, type ModuleManifest } from "./manifest.js";
import { moduleFormats } from "./module-name.js";

/** A finished image: a draft in the directory of modules, and the name that it is to have there. */
export interface PlacedImage {
  readonly draft: string;
  readonly file: string;
}

interface Placing {
  readonly manifest: ModuleManifest;
  readonly drafts: readonly PlacedImage[];
}

const planName = /^\.(.+)\.placing\.json$/;

/**
 * Puts a module's finished images and its manifest in the place of what there is of that name. Several files cannot be replaced in one step, so
 * a file says first what is to be done: of a crash before it the old module is left, of one after it the new one, once `finishPlacings` has run.
 */
export async function placeModule(
  directory: string,
  manifest: ModuleManifest,
  images: readonly PlacedImage[],
): Promise<void> {
  const drafts = images.map(({ draft, file }) => ({ draft: basename(draft), file }));
  const plan = join(directory, planFile(manifest.name));
  await writeAtomically(plan, `${JSON.stringify({ manifest, drafts })}\n`, { durable: true });
  await carryOut(directory, { manifest, drafts });
}

/** Brings to their end what `placeModule` has begun and a crash has cut off. Idempotent, also where another process does the same. */
export async function finishPlacings(directory: string): Promise<void> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  for (const file of names) {
    const name = planName.exec(file)?.[1];
    if (name === undefined) continue;
    const placing = await readPlan(directory, name);
    if (placing !== null && (await isWhole(directory, placing))) await carryOut(directory, placing);
    else await forgetPlacing(directory, name);
  }
}

/** For who changes a module otherwise: what was to be done with it before is no more. */
export async function forgetPlacing(directory: string, name: string): Promise<void> {
  await rm(join(directory, planFile(name)), { force: true });
}

export async function syncDirectory(directory: string): Promise<void> {
  await using opened = await open(directory, "r");
  await opened.sync();
}

function planFile(name: string): string {
  return `.${name}.placing.json`;
}

async function carryOut(directory: string, { manifest, drafts }: Placing): Promise<void> {
  const { name } = manifest;
  for (const { draft, file } of drafts) await rename(join(directory, draft), join(directory, file)).catch(onlyMissing);
  for (const format of moduleFormats) {
    const file = `${name}.${format}`;
    if (manifest.files[file] === undefined) await rm(join(directory, file), { force: true });
  }
  await writeManifest(directory, manifest);
  await syncDirectory(directory);
  await forgetPlacing(directory, name);
}

/** null for what is no plan of that module, or gone meanwhile. */
async function readPlan(directory: string, name: string): Promise<Placing | null> {
  try {
    const text = await readFile(join(directory, planFile(name)), "utf8");
    const { manifest, drafts } = JSON.parse(text) as Placing;
    parseManifest(name, JSON.stringify(manifest));
    const isOwn = ({ draft, file }: PlacedImage): boolean =>
      manifest.files[file] !== undefined && draft === basename(draft) && draft.startsWith(`.`);
    return drafts.every(isOwn) ? { manifest, drafts } : null;
  } catch (error) {
    if (isSquashError(error) || error instanceof SyntaxError || error instanceof TypeError) return null;
    onlyMissing(error as NodeJS.ErrnoException);
    return null;
  }
}

/** Whether each image is there still, where it was or where it is to be. */
async function isWhole(directory: string, { manifest, drafts }: Placing): Promise<boolean> {
  for (const { draft, file } of drafts) {
    const found = (await sizeOf(join(directory, draft))) ?? (await sizeOf(join(directory, file)));
    if (found !== manifest.files[file]?.size) return false;
  }
  return true;
}

async function sizeOf(path: string): Promise<number | null> {
  return lstat(path).then(
    (stat) => (stat.isFile() ? stat.size : null),
    (error: NodeJS.ErrnoException) => {
      onlyMissing(error);
      return null;
    },
  );
}

function onlyMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}
