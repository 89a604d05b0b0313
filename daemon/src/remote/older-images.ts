import { access, chmod, mkdir, rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { Captures } from "../core/captures.js";
import type { JobContext } from "../core/jobs.js";
import { Slots } from "../core/slots.js";
import { scratchDirectory } from "../modules/bases/base.js";
import { Cleanup } from "../modules/cleanup.js";
import { unpackBounds } from "../modules/squashfs-survey.js";
import { isOurFault, unpackSquashfs } from "../modules/unpack-squashfs.js";
import { invalidObject } from "../core/remote/invalid-object.js";
import { fetchOlder } from "../s3/older-fetch.js";
import { olderPart, type OlderImage } from "../s3/older-objects.js";
import type { BucketParts } from "./bucket-parts.js";
import { counter, refuseFullDisk } from "./remote-modules.js";

export interface OlderImagesOptions {
  readonly bucket: BucketParts;
  readonly dataDir: string;
  /** what is sent may be as large */
  readonly maxBytes: number;
  /** path of native/preload/free_marks.c's library */
  readonly marks: string;
  /** throws where squashd is still starting */
  readonly captures: () => Pick<Captures, "takeUnpacked">;
}

/** Makes images of our own of those that older daemons have put into the bucket, whose bytes the kernel never mounts. */
export class OlderImages {
  readonly #options: OlderImagesOptions;
  /** one at a time: each may take half of the disk that is free */
  readonly #unpacking = new Slots(1);

  constructor(options: OlderImagesOptions) {
    this.#options = options;
  }

  /**
   * Fetches an image, unpacks it where nothing else can be reached, and writes what came of it to the new file `target`, as an erofs image. Returns
   * its size. `name` is for messages. Throws `s3_object_invalid` for what cannot be used, `build_failed` where there is no room, `cancelled`.
   */
  async make(
    image: OlderImage,
    { name, target }: { readonly name: string; readonly target: string },
    context: JobContext,
  ): Promise<number> {
    const { bucket, maxBytes, marks, captures } = this.#options;
    const { signal, progress } = context;
    captures(); // before anything is fetched
    await access(marks).catch((cause: unknown) => {
      const hint = "it belongs beside sq-host, and is made with it (npm run build:native)";
      throw new SquashError("build_failed", `Cannot unpack ${name}: "${marks}" is not there; ${hint}`, { cause });
    });
    if (image.size > maxBytes)
      throw invalidObject(image.key, `it has ${image.size} bytes, SQUASH_MAX_UPLOAD_MB allows ${maxBytes}`);
    const part = join(bucket.folder, olderPart(image));
    await refuseFullDisk(bucket.folder, image.size);
    await mkdir(bucket.folder, { recursive: true, mode: 0o700 });
    await fetchOlder(bucket.bucket, image, part, {
      signal,
      progress: counter(context, `fetching ${name}`, image.size),
    });
    progress("waiting until no other image is unpacked", 0);
    return this.#unpacking.run(() => this.#unpack(image, { name, target, part }, { signal, progress }), signal);
  }

  async #unpack(
    image: OlderImage,
    { name, target, part }: { readonly name: string; readonly target: string; readonly part: string },
    { signal, progress }: JobContext,
  ): Promise<number> {
    const { dataDir, marks, captures } = this.#options;
    await using cleanup = new Cleanup();
    const scratch = await scratchDirectory(dataDir, cleanup);
    try {
      progress(`unpacking ${name}`, 0);
      await chmod(part, 0o644); // the tool is nobody; the folder is closed to others
      const directory = await unpackSquashfs({ image: part, name, marks }, scratch, signal);
      progress(`packing ${name}`, 0);
      const { bytes: sizeLimit } = await unpackBounds(dataDir);
      const output = { image: relative(dataDir, target), remove: () => rm(target, { force: true }), sizeLimit };
      const size = await captures().takeUnpacked(relative(dataDir, directory), output, signal);
      await rm(part, { force: true });
      return size;
    } catch (error) {
      if (!isSquashError(error) || !["module_invalid", "build_failed"].includes(error.code)) throw error;
      await rm(part, { force: true });
      if (isOurFault(error)) throw error;
      throw invalidObject(image.key, `it cannot be unpacked: ${error.message}`);
    }
  }
}
