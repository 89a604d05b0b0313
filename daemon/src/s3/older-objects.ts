import { createHash } from "node:crypto";
import type { ObjectFacts, ObjectStore } from "../core/remote/object-store.js";
import { isId, isLabel, isModuleName } from "../core/validate.js";
import { invalidObject } from "../core/remote/invalid-object.js";
import { olderDigest, olderManifest } from "./older-manifest.js";

const suffix = ".squashfs";
const maxManifestBytes = 1_048_576;
/** where snapshots lie; the first place is the one to ask first */
const snapshotPlaces = [
  {
    all: "sandboxes/",
    of: (id: string) => `sandboxes/${id}/snapshots/`,
    pattern: /^sandboxes\/([^/]+)\/snapshots\/([^/]+)\.squashfs$/,
  },
  { all: "snapshots/", of: (id: string) => `snapshots/${id}/`, pattern: /^snapshots\/([^/]+)\/([^/]+)\.squashfs$/ },
] as const;

/** An image that an older daemon has put into the bucket: squashfs, and nobody vouches for it. */
export interface OlderImage extends ObjectFacts {
  /** what a manifest beside it says that it is; null where none does */
  readonly sha256: string | null;
}

export interface OlderModule extends OlderImage {
  readonly name: string;
}

export interface OlderSnapshot extends OlderImage {
  readonly id: string;
  readonly label: string;
}

/**
 * What older daemons keep in a bucket, which is read and never written: `modules/<name>.squashfs`, and snapshots as
 * `sandboxes/<id>/snapshots/<label>.squashfs` or `snapshots/<id>/<label>.squashfs`. With `isOn` false there is none: a bucket whose content is
 * encrypted is to have nothing that is not.
 */
export class OlderObjects {
  readonly #store: ObjectStore;
  readonly #isOn: boolean;

  constructor(store: ObjectStore, { isOn }: { readonly isOn: boolean }) {
    this.#store = store;
    this.#isOn = isOn;
  }

  /** null where there is none. Throws `s3_object_invalid` where its manifest cannot be. */
  async module(name: string, signal: AbortSignal): Promise<OlderModule | null> {
    const found = await this.#head(moduleKey(name), signal);
    return found === null ? null : { ...found, name, sha256: await this.#digestOf(name, signal) };
  }

  /** The first of the two places that has it; null where none does. */
  async snapshot(id: string, label: string, signal: AbortSignal): Promise<OlderSnapshot | null> {
    for (const key of snapshotKeys(id, label)) {
      const found = await this.#head(key, signal);
      if (found !== null) return { ...found, id, label, sha256: null };
    }
    return null;
  }

  /** All modules, without asking what their manifests say. */
  async *modules(signal: AbortSignal): AsyncGenerator<OlderModule> {
    for await (const facts of this.#list("modules/", signal)) {
      const [, name = ""] = /^modules\/([^/]+)\.squashfs$/.exec(facts.key) ?? [];
      if (isModuleName(name)) yield { ...facts, name, sha256: null };
    }
  }

  /** Every snapshot, or those of one sandbox, each once. */
  async *snapshots(signal: AbortSignal, sandbox: string | null = null): AsyncGenerator<OlderSnapshot> {
    const seen = new Set<string>();
    for (const { all, of, pattern } of snapshotPlaces)
      for await (const facts of this.#list(sandbox === null ? all : of(sandbox), signal)) {
        const [, id, label] = pattern.exec(facts.key) ?? [];
        if (!isId(id) || !isLabel(label) || seen.has(`${id}/${label}`)) continue;
        seen.add(`${id}/${label}`);
        yield { ...facts, id, label, sha256: null };
      }
  }

  /** Keys of all that an older daemon has of a module, a snapshot, or a sandbox; some may not be there. */
  async keysOf(
    what: { readonly module: string } | { readonly id: string; readonly label: string | null },
    signal: AbortSignal,
  ): Promise<string[]> {
    if (!this.#isOn) return [];
    if ("module" in what) return [moduleKey(what.module), ...manifestKeys(what.module)];
    const { id, label } = what;
    if (label !== null) return snapshotKeys(id, label);
    const keys: string[] = [];
    for await (const { key } of this.#list(`snapshots/${id}/`, signal)) keys.push(key);
    return keys;
  }

  async #head(key: string, signal: AbortSignal): Promise<ObjectFacts | null> {
    return this.#isOn ? this.#store.head(key, signal) : null;
  }

  async *#list(prefix: string, signal: AbortSignal): AsyncGenerator<ObjectFacts> {
    if (this.#isOn) yield* this.#store.list(prefix, signal);
  }

  async #digestOf(name: string, signal: AbortSignal): Promise<string | null> {
    for (const key of manifestKeys(name)) {
      const found = await this.#store.read(key, { maxBytes: maxManifestBytes, signal });
      const manifest = found === null ? null : olderManifest(found.body);
      if (manifest === null) continue; // none, or one of ours, which is of another image
      const digest = digestIn(manifest, key);
      if (digest !== null) return digest;
    }
    return null;
  }
}

function digestIn(manifest: Readonly<Record<string, unknown>>, key: string): string | null {
  try {
    return olderDigest(manifest);
  } catch (error) {
    throw invalidObject(key, (error as RangeError).message);
  }
}

/** What is said of where a module or a snapshot came from: the object, and which one. */
export function olderSource({ key, etag }: ObjectFacts): string {
  return `an older daemon's ${key} (${/^"?([\w.-]{1,80})"?$/.exec(etag)?.[1] ?? "?"})`;
}

/** A name for a file on its way here, the same as long as the object is the same. */
export function olderPart({ key, etag, size }: ObjectFacts): string {
  return `older-${createHash("sha256").update(`${key}\n${etag}\n${size}`).digest("hex").slice(0, 32)}.part`;
}

function moduleKey(name: string): string {
  return `modules/${name}${suffix}`;
}

function manifestKeys(name: string): string[] {
  return [`modules/${name}${suffix}.manifest.json`, `modules/${name}.manifest.json`];
}

function snapshotKeys(id: string, label: string): string[] {
  return snapshotPlaces.map(({ of }) => `${of(id)}${label}${suffix}`);
}
