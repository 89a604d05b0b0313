import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { isSquashError, SquashError } from "@squash/sdk/errors";
import type { ImageMerge } from "../core/image-merge.js";
import { newImage, ownerOfImage } from "../core/image-ids.js";
import type { JobContext } from "../core/jobs.js";
import type { SandboxStore, SnapshotRecord } from "../core/ports.js";
import { SharedWork } from "../core/shared-work.js";
import type { Sandbox } from "../core/sandbox.js";
import type { Sandboxes } from "../core/sandboxes.js";
import type { SnapshotAdoption } from "../core/snapshot-adoption.js";
import type { SnapshotImages } from "../core/snapshot-images.js";
import { findSnapshot } from "../core/snapshots.js";
import type { Renewed } from "../s3/blobs.js";
import type { SnapshotImageObject, SnapshotObject } from "../s3/snapshot-objects.js";
import { parseStoredFile, type StoredFile } from "../s3/stored-file.js";
import { writeAtomically } from "../store/atomic-file.js";
import { olderSource } from "../s3/older-objects.js";
import type { BucketParts } from "./bucket-parts.js";
import type { OlderImages } from "./older-images.js";
import { counter, refuseFullDisk } from "./remote-modules.js";

export interface RemoteSnapshotParts {
  readonly dataDir: string;
  /** what this machine is called in the bucket */
  readonly machine: string;
  readonly bucket: BucketParts;
  readonly sandboxes: Sandboxes;
  readonly store: SandboxStore;
  readonly images: SnapshotImages;
  readonly merge: ImageMerge;
  readonly adoption: SnapshotAdoption;
  /** for what older daemons have put into the bucket */
  readonly older: Pick<OlderImages, "make">;
}

export interface SnapshotPush {
  /** takes nothing for granted that is remembered of earlier ones */
  readonly thorough: boolean;
  /** sends all of it, and replaces one in the bucket, also where that is damaged; null: only what the bucket does not have */
  readonly renewed: Renewed | null;
}

/** What is remembered of an image that was sent. */
interface SentImage {
  readonly file: StoredFile;
  /** a snapshot in the bucket that names it: while that is there, so are the pieces */
  readonly namedBy: { readonly id: string; readonly label: string };
}

/** Sends snapshots of sandboxes to the bucket and fetches them from it. */
export class RemoteSnapshots {
  readonly #parts: RemoteSnapshotParts;
  readonly #pulling = new SharedWork<void>();
  /** snapshots have images in common */
  readonly #fetching = new SharedWork<void>();

  constructor(parts: RemoteSnapshotParts) {
    this.#parts = parts;
  }

  /** Returns the bytes that had to be sent. Throws `sandbox_not_found`, `snapshot_not_found`, `snapshot_exists`, `snapshot_damaged`, `s3_*`. */
  async push(id: string, label: string, options: SnapshotPush, context: JobContext): Promise<number> {
    const { sandboxes, images, bucket } = this.#parts;
    const { signal } = context;
    const sandbox = sandboxes.find(id);
    const snapshot = findSnapshot(sandbox, label);
    const isReplaced = options.renewed !== null;
    const before = await this.#etagThere(sandbox, snapshot, { isReplaced, signal });
    if (before !== null && !options.thorough && !isReplaced) return 0;
    return images.hold(snapshot.images, async () => {
      const { sent, sentBytes } = await this.#sendImages(id, snapshot, options, context);
      const object = objectOf(sandbox, snapshot, { images: sent, machine: this.#parts.machine });
      if (!(await bucket.snapshots.write(object, { etag: isReplaced ? before : null, signal }))) {
        const found = await bucket.snapshots.read(id, label, context.signal);
        if (found?.created !== snapshot.created) throw otherInBucket(id, label);
      }
      for (const image of sent) await this.#remember(image, { id, label });
      return sentBytes;
    });
  }

  /**
   * Fetches a snapshot of a sandbox that is here; who wants it meanwhile waits for the same, which goes on for as long as anybody does. Throws
   * `snapshot_not_found`, `s3_*`.
   */
  pull(id: string, label: string, context: JobContext): Promise<void> {
    return this.#pulling.run(`snapshot "${label}" of "${id}"`, context, (shared) => this.#pull(id, label, shared));
  }

  /**
   * Fetches the images of a snapshot, and keeps them while `work` runs, after which somebody must name them. An older daemon's snapshot does not say
   * its modules: `layers` are those that it is put upon. Throws `snapshot_not_found`, `s3_*`.
   */
  async withImages<T>(
    { id, label, layers }: { readonly id: string; readonly label: string; readonly layers: readonly string[] },
    context: JobContext,
    work: (snapshot: SnapshotRecord) => Promise<T>,
  ): Promise<T> {
    const { images, bucket } = this.#parts;
    const object = await bucket.snapshots.read(id, label, context.signal);
    if (object === null) return this.#withOlder({ id, label, layers }, context, work);
    const names = object.images.map(({ name }) => name);
    return images.hold(names, async () => {
      for (const image of object.images)
        await this.#fetching.run(`image ${image.name}`, context, (shared) => this.#fetchImage(image, shared));
      const result = await work(recordOf(object));
      for (const image of object.images) await this.#remember(image, { id, label });
      return result;
    });
  }

  async #pull(id: string, label: string, context: JobContext): Promise<void> {
    const { sandboxes, adoption } = this.#parts;
    const sandbox = sandboxes.find(id);
    if (sandbox.snapshots.some((one) => one.label === label)) return;
    const layers = sandbox.record?.layers ?? [];
    await this.withImages({ id, label, layers }, context, (snapshot) => adoption.adopt(id, snapshot));
  }

  async #withOlder<T>(
    { id, label, layers }: { readonly id: string; readonly label: string; readonly layers: readonly string[] },
    context: JobContext,
    work: (snapshot: SnapshotRecord) => Promise<T>,
  ): Promise<T> {
    const { images, store, bucket, older, dataDir } = this.#parts;
    const found = await bucket.older.snapshot(id, label, context.signal);
    if (found === null)
      throw new SquashError(
        "snapshot_not_found",
        `Cannot find snapshot "${label}" of "${id}": the bucket does not have it either`,
      );
    const name = newImage(null);
    return images.hold([name], async () => {
      const draft = join(bucket.folder, `${name}.out`);
      try {
        const size = await older.make(found, { name: `snapshot ${id}@${label}`, target: draft }, context);
        await mkdir(join(dataDir, "snapshots"), { recursive: true, mode: 0o700 });
        await rename(draft, join(dataDir, store.snapshotImage(name)));
        const created = new Date(found.modifiedMs).toISOString();
        return await work({ label, parent: null, created, size, layers, images: [name], by: olderSource(found) });
      } finally {
        await rm(draft, { force: true });
      }
    });
  }

  /** The etag of that very snapshot in the bucket, or, where it is to be replaced, of one that is damaged; null where there is none. */
  async #etagThere(
    { id, record }: Sandbox,
    { label, created }: SnapshotRecord,
    { isReplaced, signal }: { readonly isReplaced: boolean; readonly signal: AbortSignal },
  ): Promise<string | null> {
    const { bucket, machine } = this.#parts;
    const found = await bucket.snapshots.read(id, label, signal).catch((error: unknown) => {
      if (isReplaced && isSquashError(error) && error.code === "s3_object_invalid") return "damaged" as const;
      throw error;
    });
    if (found === "damaged") return bucket.snapshots.etag(id, label, signal);
    if (found === null) return null;
    if (found.created === created && found.sandboxCreated === record?.created) return found.etag;
    if (found.machine === machine && found.sandboxCreated !== record?.created) {
      // of a sandbox that was here, and is not any more
      await bucket.snapshots.remove(id, [label], signal);
      return null;
    }
    throw otherInBucket(id, label);
  }

  async #sendImages(
    id: string,
    { images, size }: SnapshotRecord,
    { thorough, renewed }: SnapshotPush,
    context: JobContext,
  ): Promise<{ readonly sent: SnapshotImageObject[]; readonly sentBytes: number }> {
    const { store, bucket, dataDir } = this.#parts;
    const { signal } = context;
    const progress = counter(context, `sending snapshots of ${id}`, size);
    if (images.some((image) => ownerOfImage(image) !== null)) return this.#sendMerged(images, renewed, context);
    const sent: SnapshotImageObject[] = [];
    let sentBytes = 0;
    for (const image of images) {
      const known = thorough || renewed !== null ? null : await this.#known(image, signal);
      if (known !== null) {
        sent.push({ name: image, file: known });
        continue;
      }
      await store.checkSnapshotImage(image);
      const path = join(dataDir, store.snapshotImage(image));
      const one = await bucket.files.sendByContent(path, { signal, progress, renewed });
      sent.push({ name: image, file: one.file });
      sentBytes += one.sentBytes;
    }
    return { sent, sentBytes };
  }

  /** Images that are subvolumes are of this machine only: one file is made of them, for the bucket alone. */
  async #sendMerged(
    images: readonly string[],
    renewed: Renewed | null,
    context: JobContext,
  ): Promise<{ readonly sent: SnapshotImageObject[]; readonly sentBytes: number }> {
    const { merge, bucket, dataDir } = this.#parts;
    const { signal } = context;
    const name = newImage(null);
    const path = `cache/s3/${name}.out`;
    const remove = (): Promise<void> => rm(join(dataDir, path), { force: true });
    try {
      const size = await merge.run(images, { path, remove }, signal);
      const progress = counter(context, "sending the files of a snapshot", size);
      const { file, sentBytes } = await bucket.files.sendByContent(join(dataDir, path), { signal, progress, renewed });
      return { sent: [{ name, file }], sentBytes };
    } finally {
      await remove();
    }
  }

  async #fetchImage({ name, file }: SnapshotImageObject, context: JobContext): Promise<void> {
    const { store, bucket, dataDir } = this.#parts;
    if (store.snapshotFacts(name) !== null) return store.checkSnapshotImage(name);
    const target = join(dataDir, store.snapshotImage(name));
    const part = join(bucket.folder, `${name}.part`);
    await refuseFullDisk(bucket.folder, file.size);
    const progress = counter(context, "fetching the files of a snapshot", file.size);
    await bucket.files.fetch(file, part, { signal: context.signal, progress });
    await mkdir(join(dataDir, "snapshots"), { recursive: true, mode: 0o700 });
    await rename(part, target);
  }

  /** What was sent of an image before, where the bucket has it still. */
  async #known(image: string, signal: AbortSignal): Promise<StoredFile | null> {
    const note = parseNote(image, await readFile(this.#notePath(image), "utf8").catch(() => ""));
    if (note === null) return null;
    const { id, label } = note.namedBy;
    return (await this.#parts.bucket.snapshots.etag(id, label, signal)) === null ? null : note.file;
  }

  /** Without it the image is read again, and only what is missing is sent. */
  async #remember({ name, file }: SnapshotImageObject, namedBy: SentImage["namedBy"]): Promise<void> {
    await mkdir(join(this.#parts.bucket.folder, "sent"), { recursive: true, mode: 0o700 });
    const text = `${JSON.stringify({ file, namedBy } satisfies SentImage)}\n`;
    await writeAtomically(this.#notePath(name), text, { durable: false }).catch(() => undefined);
  }

  #notePath(image: string): string {
    return join(this.#parts.bucket.folder, "sent", `${image}.json`);
  }
}

function objectOf(
  { id, record }: Sandbox,
  snapshot: SnapshotRecord,
  sent: Pick<SnapshotObject, "images" | "machine">,
): SnapshotObject {
  const { label, parent, created, size, layers, by = null } = snapshot;
  return { id, label, parent, created, size, layers, by, sandboxCreated: record?.created ?? created, ...sent };
}

function recordOf({ label, parent, created, size, layers, images, by }: SnapshotObject): SnapshotRecord {
  const names = images.map(({ name }) => name);
  return { label, parent, created, size, layers, images: names, ...(by !== null && { by }) };
}

function parseNote(image: string, text: string): SentImage | null {
  try {
    const { file, namedBy } = JSON.parse(text) as SentImage;
    return { file: parseStoredFile(file, image), namedBy: { id: namedBy.id, label: namedBy.label } };
  } catch {
    return null; // none, or cut off
  }
}

function otherInBucket(id: string, label: string): SquashError {
  const hint = `take it under another label, or remove that one with "sq s3 rm snapshot ${id} ${label}"`;
  return new SquashError(
    "snapshot_exists",
    `Cannot send snapshot "${label}" of "${id}": the bucket has another one; ${hint}`,
  );
}
