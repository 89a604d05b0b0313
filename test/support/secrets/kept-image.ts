import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, linkSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { trustByHand } from "../modules.js";
import { repositoryRoot } from "../root.js";

const cache = join(repositoryRoot, "build/test-clients");

/** An image of what `fill` puts into an empty folder, made once for a checkout and all that it is made of. Returns its path. */
export function keptImage(madeOf: readonly (string | Buffer)[], fill: (root: string) => void): string {
  const hash = createHash("sha256");
  for (const each of madeOf) hash.update(`${each.length} `).update(each);
  const path = join(cache, `${hash.digest("hex").slice(0, 16)}.erofs`);
  if (existsSync(path)) return path;
  const root = `${path}.root-${process.pid}`;
  mkdirSync(root, { recursive: true });
  try {
    fill(root);
    execFileSync("mkfs.erofs", ["--all-root", `${path}.draft-${process.pid}`, root], { stdio: "ignore" });
  } finally {
    rmSync(root, { recursive: true });
  }
  renameSync(`${path}.draft-${process.pid}`, path);
  return path;
}

/** What tells a file of this machine from another version of it. */
export function factsOf(path: string): string {
  const { size, mtimeMs } = statSync(path);
  return `${path} ${size} ${mtimeMs}`;
}

/** Puts an image into a folder of modules under a name. */
export function placeModule(folder: string, name: string, image: string): void {
  mkdirSync(folder, { recursive: true });
  const to = join(folder, `${name}.erofs`);
  try {
    linkSync(image, to);
  } catch {
    copyFileSync(image, to); // another file system
  }
  // a digest of so many bytes is taken once
  const manifest = join(folder, `${name}.manifest.json`);
  const kept = `${image}.${name}.json`;
  if (existsSync(kept)) copyFileSync(kept, manifest);
  else {
    trustByHand(folder, name);
    copyFileSync(manifest, kept);
  }
}
