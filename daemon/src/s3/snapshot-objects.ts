import { HostileFields } from "../core/remote/hostile-fields.js";
import { invalidObject } from "../core/remote/invalid-object.js";
import type { ObjectStore } from "../core/remote/object-store.js";
import { bounds, isId, isLabel, labelPattern, moduleNamePattern } from "../core/validate.js";
import type { SealedJson } from "./sealed-json.js";
import { parseStoredFile, type StoredFile } from "./stored-file.js";

const maxBytes = 64 * 1_048_576;
const maxImages = 64;
const maxLayers = 128;
const labelText = new RegExp(labelPattern);
const moduleName = new RegExp(moduleNamePattern);
const imageName = /^[0-9a-f]{32}$/;

/** An image of a snapshot, by its name on every machine. */
export interface SnapshotImageObject {
  /** 32 hexadecimal digits */
  readonly name: string;
  readonly file: StoredFile;
}

/** A snapshot in the bucket. */
export interface SnapshotObject {
  readonly id: string;
  readonly label: string;
  readonly parent: string | null;
  readonly created: string;
  readonly size: number;
  /** names of its modules, topmost first */
  readonly layers: readonly string[];
  /** topmost first */
  readonly images: readonly SnapshotImageObject[];
  readonly by: string | null;
  /** when the sandbox was made: another one of the same name has another history */
  readonly sandboxCreated: string;
  /** which machine has sent it */
  readonly machine: string;
}

/** The snapshots of a bucket: `sandboxes/<id>/snapshots/<label>.json`, which say where the bytes of their images are. */
export class SnapshotObjects {
  readonly #store: ObjectStore;
  readonly #json: SealedJson;

  constructor(store: ObjectStore, json: SealedJson) {
    this.#store = store;
    this.#json = json;
  }

  /** null where there is none. Throws `s3_object_invalid`. */
  async read(
    id: string,
    label: string,
    signal: AbortSignal,
  ): Promise<(SnapshotObject & { readonly etag: string }) | null> {
    const key = keyOf(id, label);
    const found = await this.#json.read(key, { maxBytes, signal });
    return found === null ? null : { ...parse(key, { id, label }, found.value), etag: found.etag };
  }

  /** Of what is there, which may be damaged; null where there is nothing. */
  async etag(id: string, label: string, signal: AbortSignal): Promise<string | null> {
    return (await this.#store.head(keyOf(id, label), signal))?.etag ?? null;
  }

  /** Writes a snapshot whose images are there; in the place of the one that had `etag`, else only where there is none. Whether it was done. */
  async write(
    snapshot: SnapshotObject,
    { etag, signal }: { readonly etag: string | null; readonly signal: AbortSignal },
  ): Promise<boolean> {
    const key = keyOf(snapshot.id, snapshot.label);
    const condition = etag === null ? ({ kind: "absent" } as const) : ({ kind: "same", etag } as const);
    return (await this.#json.write(key, { schema: 1, ...snapshot }, { condition, signal })) !== null;
  }

  async remove(id: string, labels: readonly string[], signal: AbortSignal): Promise<void> {
    const keys = labels.map((label) => keyOf(id, label));
    await this.#store.remove(keys, signal);
  }

  /** Labels of a sandbox's snapshots, in the order of their letters. */
  async labels(id: string, signal: AbortSignal): Promise<string[]> {
    const labels: string[] = [];
    for await (const { label } of this.all(signal, id)) labels.push(label);
    return labels;
  }

  /** Every snapshot's place, or those of one sandbox, in the order of their letters. */
  async *all(
    signal: AbortSignal,
    sandbox: string | null = null,
  ): AsyncGenerator<{ readonly id: string; readonly label: string; readonly etag: string }> {
    const prefix = sandbox === null ? "sandboxes/" : `sandboxes/${sandbox}/snapshots/`;
    for await (const { key, etag } of this.#store.list(prefix, signal)) {
      const [, id, label] = /^sandboxes\/([^/]+)\/snapshots\/([^/]+)\.json$/.exec(key) ?? [];
      if (isId(id) && isLabel(label)) yield { id, label, etag };
    }
  }
}

function keyOf(id: string, label: string): string {
  return `sandboxes/${id}/snapshots/${label}.json`;
}

function parse(
  key: string,
  { id, label }: { readonly id: string; readonly label: string },
  value: Readonly<Record<string, unknown>>,
): SnapshotObject {
  if (value["schema"] !== 1 || value["id"] !== id || value["label"] !== label)
    throw invalidObject(key, "it is not that snapshot's");
  const fields = HostileFields.from(key, value);
  return {
    id,
    label,
    parent: fields.nullable("parent", (name) => fields.text(name, { max: 128, pattern: labelText })),
    created: fields.time("created"),
    size: fields.integer("size", 0, Number.MAX_SAFE_INTEGER),
    layers: fields.texts("layers", { count: maxLayers, max: 128, pattern: moduleName }),
    images: fields.objects("images", 1, maxImages).map((image) => ({
      name: image.text("name", { max: 32, pattern: imageName }),
      file: parseStoredFile(image.anything("file"), key),
    })),
    by: fields.nullable("by", (name) => fields.text(name, { max: bounds.by })),
    sandboxCreated: fields.time("sandboxCreated"),
    machine: fields.text("machine", { max: 64 }),
  };
}
