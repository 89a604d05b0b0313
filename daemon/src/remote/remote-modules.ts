import { chmod, mkdir, rename, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { isSquashError, SquashError } from "@squash/sdk/errors";
import type { JobContext } from "../core/jobs.js";
import { invalidObject } from "../core/remote/invalid-object.js";
import { SharedWork } from "../core/shared-work.js";
import type { DirectoryCatalog } from "../modules/catalog.js";
import { parseManifest, type ModuleManifest } from "../modules/manifest.js";
import { checkModuleName, type ModuleFormat } from "../modules/module-name.js";
import { draftPath } from "../modules/pack.js";
import { placeModule } from "../modules/placing.js";
import { checkImage } from "../modules/superblock.js";
import type { Renewed } from "../s3/blobs.js";
import { moduleKey, type KnownModule, type ModuleObject } from "../s3/module-objects.js";
import { olderSource, type OlderModule } from "../s3/older-objects.js";
import type { BucketParts } from "./bucket-parts.js";

/** of the free disk that must be left */
const spareBytes = 64 * 1_048_576;

export interface RemoteModulesOptions {
  readonly catalog: DirectoryCatalog;
  readonly bucket: BucketParts;
  /** Does what takes the present images of a module away. Throws `module_in_use`. */
  readonly replace: (name: string, work: () => Promise<void>) => Promise<void>;
  /** Fetches a module that only an older daemon has in the bucket. Throws as `pull` does. */
  readonly pullOlder: (
    module: OlderModule,
    options: { readonly replace: boolean },
    context: JobContext,
  ) => Promise<void>;
  /** told of a module that has come; the format is that of its image */
  readonly arrived: (name: string, format: ModuleFormat) => void;
}

/** A module's image that is to be sent. */
interface Local {
  readonly manifest: ModuleManifest;
  readonly format: ModuleFormat;
  readonly sha256: string;
}

/** Sends modules to the bucket and fetches them from it. */
export class RemoteModules {
  readonly #options: RemoteModulesOptions;
  readonly #pulling = new SharedWork<void>();

  constructor(options: RemoteModulesOptions) {
    this.#options = options;
  }

  /**
   * Sends a module: its squashfs image where it has one. With `renewed` all of it is sent, in the place of what the bucket has under its name,
   * whatever that is. Returns the bytes that had to be sent; 0 where the bucket has that very module. Throws `module_exists` where it has another one
   * that is not to be replaced, `module_not_found`, `module_invalid`, `s3_*`.
   */
  async push(name: string, { renewed }: { readonly renewed: Renewed | null }, context: JobContext): Promise<number> {
    const { catalog, bucket } = this.#options;
    const { signal } = context;
    const local = this.local(name) ?? (await this.#notHere(name));
    const { manifest, format, sha256 } = local;
    const found = renewed === null ? await bucket.modules.read(name, signal) : null;
    if (found !== null && found.file.sha256 !== sha256) throw otherInBucket(name);
    if (found !== null && (await this.#isWhole(found, signal))) return 0;
    if (found === null && renewed === null) await this.#refuseOlder(manifest, signal);
    const etag = renewed === null ? (found?.etag ?? null) : await bucket.modules.etag(name, signal);
    const path = join(catalog.directory, `${name}.${format}`);
    const { file, sentBytes } = await bucket.files.send(path, sha256, {
      signal,
      renewed,
      progress: counter(context, `sending ${name}`, manifest.files[`${name}.${format}`]?.size ?? 0),
    });
    const sent = { name, format, file: { ...file, sha256 }, manifest: { ...manifest } };
    if (!(await bucket.modules.write(sent, { etag, signal }))) {
      const now = await bucket.modules.read(name, signal); // our own earlier try, or another machine's
      if (now?.file.sha256 !== sha256) throw otherInBucket(name);
    }
    return sentBytes;
  }

  /**
   * Fetches a module; who wants it meanwhile waits for the same, which goes on for as long as anybody does. Throws `module_not_found` where the
   * bucket has none, `module_exists` where there is another one here that is not to be replaced, `module_in_use`, `s3_*`, `build_failed` where the
   * disk is full.
   */
  async pull(name: string, { replace }: { readonly replace: boolean }, context: JobContext): Promise<void> {
    const ours = { isBegun: false };
    for (;;) {
      try {
        return await this.#pulling.run(`module "${name}"`, context, (shared) => {
          ours.isBegun = true;
          return this.#pull(name, replace, shared);
        });
      } catch (error) {
        // it was begun by who would not replace another one
        if (!replace || ours.isBegun || !isSquashError(error) || error.code !== "module_exists") throw error;
      }
    }
  }

  /** The image of a module that would be sent; null where it has none that is trusted. Throws `module_invalid`. */
  local(name: string): Local | null {
    const manifest = this.#options.catalog.manifests.of(name);
    if (manifest === null) return null;
    for (const format of ["squashfs", "erofs"] as const) {
      const listed = manifest.files[`${name}.${format}`];
      if (listed !== undefined) return { manifest, format, sha256: listed.sha256 };
    }
    return null;
  }

  /** Whether a module here is that of the bucket, by any of its images. */
  isSame(name: string, remote: KnownModule): boolean {
    const { files } = this.#options.catalog.manifests.of(name) ?? {};
    return files?.[`${name}.${remote.format}`]?.sha256 === remote.sha256;
  }

  #isHere(name: string, { format, file: { size, sha256 } }: ModuleObject): boolean {
    return this.#options.catalog.imagesOf(name).length > 0 && this.isSame(name, { name, format, size, sha256 });
  }

  async #pull(name: string, replace: boolean, context: JobContext): Promise<void> {
    const { catalog, bucket, replace: replaceModule } = this.#options;
    const { signal } = context;
    checkModuleName(name);
    const remote = await bucket.modules.read(name, signal);
    if (remote === null) return this.#pullOlder(name, replace, context);
    const { file, format } = remote;
    if (this.#isHere(name, remote)) return;
    const image = `${name}.${format}`;
    const manifest = parseManifest(
      name,
      JSON.stringify({ ...remote.manifest, files: { [image]: { size: file.size, sha256: file.sha256 } } }),
    );
    // of a name and its content: others of the same content may come at the same time
    const part = join(bucket.folder, `${name}-${file.sha256.slice(0, 32)}.part`);
    await refuseFullDisk(bucket.folder, file.size);
    await bucket.files.fetch(file, part, { signal, progress: counter(context, `fetching ${name}`, file.size) });
    await catalog.reserve(name, "fetched", async () => {
      if (this.#isHere(name, remote)) return rm(part, { force: true });
      const there = catalog.imagesOf(name).length > 0;
      if (there && !replace) throw otherHere(name);
      const draft = draftPath(catalog.directory, `${name}.pull`);
      try {
        await rename(part, draft);
        const found = await checkImage(draft, name);
        if (found.format !== format)
          throw invalidObject(
            bucket.files.wholeKey(file) ?? moduleKey(name),
            `the image is ${found.format}, not ${format}`,
          );
        await chmod(draft, 0o644);
        const place = (): Promise<void> => placeModule(catalog.directory, manifest, [{ draft, file: image }]);
        if (there) await replaceModule(name, place);
        else await catalog.close(name, () => undefined, place);
        await catalog.digests.record(image, file.sha256);
      } finally {
        await rm(draft, { force: true });
      }
    });
    this.#options.arrived(name, format);
  }

  async #pullOlder(name: string, replace: boolean, context: JobContext): Promise<void> {
    const { bucket, pullOlder, arrived } = this.#options;
    const older = await bucket.older.module(name, context.signal);
    if (older === null)
      throw new SquashError("module_not_found", `Cannot find module "${name}" in the bucket either`, {
        details: { module: name },
      });
    await pullOlder(older, { replace }, context);
    arrived(name, "erofs");
  }

  /** Nothing takes the place of what older daemons have under a name, unless it was made of that. */
  async #refuseOlder({ name, builder }: ModuleManifest, signal: AbortSignal): Promise<void> {
    const older = await this.#options.bucket.older.module(name, signal);
    if (older !== null && builder !== olderSource(older)) throw otherInBucket(name);
  }

  /** What the bucket says it has may have been taken away there. */
  async #isWhole({ file }: ModuleObject, signal: AbortSignal): Promise<boolean> {
    const { blobs, files } = this.#options.bucket;
    if (files.wholeKey(file) !== null) return file.size === 0 || blobs.isKept(file.sha256, file.size, { signal });
    for (const piece of file.pieces) if (!(await blobs.isKept(piece.sha256, piece.size, { signal }))) return false;
    return true;
  }

  async #notHere(name: string): Promise<never> {
    await this.#options.catalog.facts(name); // throws where there is none
    const what = `there is no manifest that says what it is; run "sq module trust ${name}" first`;
    throw new SquashError("module_invalid", `Cannot send module "${name}": ${what}`, { details: { module: name } });
  }
}

/** Throws `build_failed` where so many bytes would leave too little room. */
export async function refuseFullDisk(folder: string, bytes: number): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (bytes + spareBytes <= free) return;
  const text = `${bytes} bytes are needed, ${free} are free, of which ${spareBytes} must stay so`;
  throw new SquashError("build_failed", `Cannot fetch from the bucket: the disk of "${folder}" has no room: ${text}`);
}

/** Says how much of `total` bytes has been done. */
export function counter(
  { progress }: Pick<JobContext, "progress">,
  step: string,
  total: number,
): (bytes: number) => void {
  let done = 0;
  progress(step, 0);
  return (bytes) => {
    done += bytes;
    progress(step, total === 0 ? 1 : Math.min(1, done / total));
  };
}

/** What refuses to take the place of a module that is here. */
export function otherHere(name: string): SquashError {
  const what = "there is another one of that name here; replace it (--replace)";
  return new SquashError("module_exists", `Cannot fetch module "${name}": ${what}`);
}

function otherInBucket(name: string): SquashError {
  const hint = 'send this one in its place with "--replace", or fetch that one with "sq pull --replace"';
  return new SquashError(
    "module_exists",
    `Cannot send module "${name}": the bucket has another one of that name; ${hint}`,
    {
      details: { module: name },
    },
  );
}
