import { createHash, randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Checksum } from "./receive.js";
import { S3Error } from "./s3-error.js";

/** A file with a part of an object. */
export interface Segment {
  /** below "data" in the bucket's folder */
  readonly file: string;
  readonly size: number;
}

/** What a writer has said about an object: "content-type", "x-amz-meta-…" and the like, which its readers get. */
export type ObjectHeaders = Readonly<Record<string, string>>;

export interface StoredObject {
  readonly key: string;
  readonly size: number;
  /** quotes included */
  readonly etag: string;
  /** whole seconds, as with S3 */
  readonly modifiedMs: number;
  readonly headers: ObjectHeaders;
  readonly checksum: Checksum | null;
  readonly segments: readonly Segment[];
}

/** What must hold for a write. */
export type Condition = { readonly kind: "absent" } | { readonly kind: "same"; readonly etag: string };

/**
 * The objects of a bucket, in a folder: "data" has the content, in files that are never written again, and "index" a small file for each object,
 * which names those of its content. What is changed is changed within one turn of the event loop, so no request sees half of it; and by
 * renaming one file, so no crash leaves half of it.
 */
export class Bucket {
  readonly folder: string;
  readonly #objects = new Map<string, StoredObject>();
  /** when a key was last removed, in the order of `tick` */
  readonly #removals = new Map<string, number>();
  readonly #readers = new Map<StoredObject, number>();
  #sorted: StoredObject[] | null = null;
  #ticks = 0;

  constructor(folder: string) {
    this.folder = folder;
    for (const each of ["data", "index", "uploads"]) mkdirSync(join(folder, each), { recursive: true });
    for (const name of readdirSync(join(folder, "index"))) {
      if (!name.endsWith(".json")) continue;
      const object = JSON.parse(readFileSync(join(folder, "index", name), "utf8")) as StoredObject;
      this.#objects.set(object.key, object);
    }
  }

  /** Where the content of a segment is, or of one that is to be written. */
  pathOf(file: string): string {
    return join(this.folder, "data", file);
  }

  newFile(): string {
    return randomUUID();
  }

  /** A moment, to be compared with later removals. */
  tick(): number {
    return ++this.#ticks;
  }

  find(key: string): StoredObject | undefined {
    return this.#objects.get(key);
  }

  /** In the order of their keys' bytes. */
  sorted(): readonly StoredObject[] {
    return (this.#sorted ??= [...this.#objects.values()].sort((a, b) =>
      Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)),
    ));
  }

  /** Writes an object if the condition holds now; `since` is the tick at which the request came. Throws `S3Error`. */
  put(object: StoredObject, condition: Condition | null, since: number): void {
    if (condition !== null) this.#check(object.key, condition, since);
    const before = this.#objects.get(object.key);
    const file = this.#indexFile(object.key);
    writeFileSync(`${file}.new`, JSON.stringify(object));
    renameSync(`${file}.new`, file);
    this.#objects.set(object.key, object);
    this.#sorted = null;
    if (before !== undefined) this.#leave(before);
  }

  /** Removes content that no object has. */
  discard(segments: readonly Segment[]): void {
    for (const { file } of segments) rmSync(this.pathOf(file), { force: true });
  }

  /** Idempotent. */
  remove(key: string): void {
    const object = this.#objects.get(key);
    if (object === undefined) return;
    unlinkSync(this.#indexFile(key));
    this.#objects.delete(key);
    this.#removals.set(key, this.tick());
    this.#sorted = null;
    this.#leave(object);
  }

  /** Keeps the content for as long as somebody reads it; returns how to give it free. */
  hold(object: StoredObject): () => void {
    this.#readers.set(object, (this.#readers.get(object) ?? 0) + 1);
    return () => {
      const left = (this.#readers.get(object) ?? 1) - 1;
      if (left > 0) this.#readers.set(object, left);
      else {
        this.#readers.delete(object);
        if (this.#objects.get(object.key) !== object) this.#leave(object);
      }
    };
  }

  /** Removes the content of what is no longer there, once nobody reads it. */
  #leave(object: StoredObject): void {
    if (this.#readers.has(object)) return;
    const current = this.#objects.get(object.key)?.segments.map(({ file }) => file);
    this.discard(object.segments.filter(({ file }) => current?.includes(file) !== true));
  }

  #check(key: string, condition: Condition, since: number): void {
    const current = this.#objects.get(key);
    const isRemoved = (this.#removals.get(key) ?? 0) > since;
    if (isRemoved) throw new S3Error("ConditionalRequestConflict", "The object was removed during the request.");
    if (condition.kind === "absent") {
      if (current !== undefined) throw preconditionFailed("If-None-Match");
    } else if (current === undefined) throw new S3Error("NoSuchKey", "The specified key does not exist.", { Key: key });
    else if (current.etag !== condition.etag) throw preconditionFailed("If-Match");
  }

  #indexFile(key: string): string {
    return join(this.folder, "index", `${createHash("sha256").update(key).digest("hex")}.json`);
  }
}

export function preconditionFailed(condition: string): S3Error {
  return new S3Error("PreconditionFailed", "At least one of the pre-conditions you specified did not hold", {
    Condition: condition,
  });
}
