import { createHash } from "node:crypto";
import type { ObjectStore } from "../core/remote/object-store.js";
import { parseManifest } from "../core/remote/parse-manifest.js";
import { manifestKey, maxManifestBytes, type SandboxManifest } from "../core/remote/sandbox-manifest.js";
import { isId } from "../core/validate.js";
import type { SealedStore } from "./sealed-store.js";

/** Looks at the sandboxes that a bucket keeps: `sandboxes/<id>/manifest.json`, which only who has their leases writes. */
export class SandboxObjects {
  readonly #store: ObjectStore;
  readonly #sealed: SealedStore;

  constructor(store: ObjectStore, sealed: SealedStore) {
    this.#store = store;
    this.#sealed = sealed;
  }

  async *ids(signal: AbortSignal): AsyncGenerator<string> {
    for await (const { key } of this.#store.list("sandboxes/", signal)) {
      const [, id] = /^sandboxes\/([^/]+)\/manifest\.json$/.exec(key) ?? [];
      if (isId(id)) yield id;
    }
  }

  /** null where there is none. Throws `s3_object_invalid`. */
  async read(id: string, signal: AbortSignal): Promise<SandboxManifest | null> {
    const found = await this.#sealed.read(manifestKey(id), { maxBytes: maxManifestBytes, signal });
    if (found === null) return null;
    return parseManifest(id, found, (text) => createHash("sha256").update(text).digest("hex"));
  }
}
