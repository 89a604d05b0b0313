import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { gzipSync } from "node:zlib";
import type { Descriptor } from "../image-schema.js";
import { runTool } from "../../run-tool.js";
import { makeTar, type Member } from "./layers.js";

const oci = "application/vnd.oci.image";

/** An image that a test makes, as its blobs. */
export interface TestImage {
  /** by digest; the manifest is one of them */
  readonly blobs: ReadonlyMap<string, Buffer>;
  readonly manifest: Descriptor;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  /** the layers' tar files */
  readonly tars: readonly Buffer[];
}

export interface TestLayer {
  readonly members: readonly Member[];
  readonly compression?: "gzip" | "zstd";
}

interface ImageFacts {
  readonly config?: object;
  readonly architecture?: string;
  /** instead of what is right */
  readonly diffIds?: readonly string[];
  readonly layerType?: string;
  readonly configType?: string;
}

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

export const hostArchitecture = process.arch === "x64" ? "amd64" : process.arch;

/** Makes an image of layers, the lowest first. */
export async function makeImage(layers: readonly TestLayer[], facts: ImageFacts = {}): Promise<TestImage> {
  const blobs = new Map<string, Buffer>();
  const keep = (mediaType: string, bytes: Buffer): Descriptor => {
    blobs.set(digestOf(bytes), bytes);
    return { mediaType, digest: digestOf(bytes), size: bytes.length };
  };
  const tars: Buffer[] = [];
  const descriptors: Descriptor[] = [];
  for (const { members, compression } of layers) {
    const tar = await makeTar(members);
    tars.push(tar);
    const type = `${oci}.layer.v1.tar${compression === undefined ? "" : `+${compression}`}`;
    descriptors.push(keep(facts.layerType ?? type, await compressed(tar, compression)));
  }
  const { config = {}, architecture = hostArchitecture } = facts;
  const rootfs = { type: "layers", diff_ids: facts.diffIds ?? tars.map(digestOf) };
  const written = Buffer.from(JSON.stringify({ architecture, os: "linux", config, rootfs }));
  const configured = keep(facts.configType ?? `${oci}.config.v1+json`, written);
  const manifest = { schemaVersion: 2, mediaType: `${oci}.manifest.v1+json`, config: configured, layers: descriptors };
  return {
    blobs,
    manifest: keep(manifest.mediaType, Buffer.from(JSON.stringify(manifest))),
    config: configured,
    layers: descriptors,
    tars,
  };
}

/** A list of manifests, by platform. */
export function makeIndex(
  entries: readonly (readonly [platform: string | null, descriptor: Descriptor, name?: string | undefined])[],
): { readonly bytes: Buffer; readonly descriptor: Descriptor } {
  const manifests = entries.map(([platform, descriptor, name]) => {
    const [os, architecture, variant] = platform?.split("/") ?? [];
    return {
      ...descriptor,
      ...(platform === null ? {} : { platform: { os, architecture, variant } }),
      ...(name === undefined ? {} : { annotations: { "org.opencontainers.image.ref.name": name } }),
    };
  });
  const mediaType = `${oci}.index.v1+json`;
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }));
  return { bytes, descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length } satisfies Descriptor };
}

/** Files of an OCI layout, by name. */
export function layoutFiles(image: TestImage, index: Buffer): Map<string, Buffer> {
  const files = new Map([
    ["oci-layout", Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
    ["index.json", index],
  ]);
  for (const [digest, bytes] of image.blobs) files.set(`blobs/sha256/${digest.slice(7)}`, bytes);
  return files;
}

export function writeFiles(directory: string, files: ReadonlyMap<string, Buffer>): void {
  mkdirSync(join(directory, "blobs/sha256"), { recursive: true });
  for (const [name, bytes] of files) writeFileSync(join(directory, name), bytes);
}

/** What `docker save` wrote before it wrote OCI layouts: layers not compressed, one of two that are the same as a link. */
export function savedArchive(image: TestImage, tag: string): Promise<Buffer> {
  const config = `${image.config.digest.slice(7)}.json`;
  const names = image.tars.map((_, index) => `${"0".repeat(60)}${1000 + index}/layer.tar`);
  const members = image.tars.map((content, index): Member => {
    const same = image.tars.findIndex((other) => other.equals(content));
    return same === index
      ? { name: names[index]!, content }
      : { name: names[index]!, type: "symlink", linkname: `../${names[same]!}` };
  });
  const saved = JSON.stringify([{ Config: config, RepoTags: [tag], Layers: names }]);
  return makeTar([
    { name: config, content: image.blobs.get(image.config.digest)! },
    ...members,
    { name: "manifest.json", content: saved },
  ]);
}

async function compressed(tar: Buffer, compression: TestLayer["compression"]): Promise<Buffer> {
  if (compression === undefined) return tar;
  if (compression === "gzip") return gzipSync(tar);
  const chunks: Buffer[] = [];
  const stdout = new Writable({ write: (chunk: Buffer, _, done) => done(void chunks.push(chunk)) });
  await runTool(["zstd", "-qc"], {
    op: "pack",
    target: "a layer",
    stdin: Readable.from([tar]),
    stdout,
    deadlineMs: 30_000,
  });
  return Buffer.concat(chunks);
}
