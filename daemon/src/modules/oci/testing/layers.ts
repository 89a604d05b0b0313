import { writeFileSync } from "node:fs";
import { buffer } from "node:stream/consumers";
import { pack, type Header } from "tar-stream";
import { buildLayer, TreeBudget } from "../layer-tree.js";
import { readTar, type FileRange, type TarEntry } from "../tar-reader.js";
import { emptyDirectory, mergeLayer, type DirectoryNode } from "../tree.js";

/** A member of a tar file that a test makes. */
export type Member = Partial<Header> & { readonly name: string; readonly content?: string | Buffer };

/** Makes a tar file with another's program, so that ours is not checked by itself. */
export function makeTar(members: readonly Member[]): Promise<Buffer> {
  const tar = pack();
  const mtime = new Date(1_700_000_000_000);
  for (const { content = "", ...header } of members) tar.entry({ mtime, ...header }, content);
  tar.finalize();
  return buffer(tar);
}

/** Writes bytes into a new file, not at its start, and says where they lie. */
export function placed(path: string, bytes: Buffer): FileRange {
  const offset = 100;
  writeFileSync(path, Buffer.concat([Buffer.alloc(offset, "x"), bytes, Buffer.alloc(offset, "y")]));
  return { path, offset, size: bytes.length };
}

/** All members of a tar file. */
export async function listTar(range: FileRange): Promise<TarEntry[]> {
  const entries: TarEntry[] = [];
  for await (const entry of readTar(range, { label: "it" })) entries.push(entry);
  return entries;
}

/** The trees of tar files, each a layer, and their merge. */
export async function mergeTars(
  ranges: readonly FileRange[],
  budget = new TreeBudget(),
): Promise<{ readonly layers: DirectoryNode[]; readonly merged: DirectoryNode }> {
  let merged = emptyDirectory();
  const layers: DirectoryNode[] = [];
  for (const [index, range] of ranges.entries()) {
    const label = `layer ${index + 1}`;
    const layer = await buildLayer(readTar(range, { label }), merged, { path: range.path, label, budget });
    layers.push(layer);
    merged = mergeLayer(merged, layer);
  }
  return { layers, merged };
}
