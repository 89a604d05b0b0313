import { open, rm } from "node:fs/promises";
import type { ObjectStore } from "../core/remote/object-store.js";
import { diskError, isDiskError } from "./disk-error.js";
import { invalidObject } from "../core/remote/invalid-object.js";
import { digestOf } from "./growing-digest.js";
import type { OlderImage } from "./older-objects.js";

/** bytes of one request; what has come of one is not lost by the next one's failure */
const rangeBytes = 8 * 1_048_576;

/**
 * Fetches an image of an older daemon to `path`, which may hold the beginning that an earlier try has fetched; it must be of that very object.
 * Throws `s3_object_invalid` where the object is another one now, or not what its manifest says, `s3_object_missing`, `s3_unreachable`,
 * `build_failed` for a full disk.
 */
export async function fetchOlder(
  store: Pick<ObjectStore, "readRange" | "head">,
  image: OlderImage,
  path: string,
  { signal, progress }: { readonly signal: AbortSignal; readonly progress: (bytes: number) => void },
): Promise<void> {
  const { key, size, etag, sha256 } = image;
  try {
    await using file = await open(path, "a", 0o600);
    let at = (await file.stat()).size;
    if (at > size) {
      await file.truncate(0);
      at = 0;
    }
    progress(at);
    while (at < size) {
      const end = Math.min(size, at + rangeBytes);
      for await (const chunk of await store.readRange(key, { start: at, end }, signal)) {
        const wanted = chunk.subarray(0, end - at);
        await file.writeFile(wanted);
        at += wanted.byteLength;
        progress(wanted.byteLength);
      }
      if (at < end) throw invalidObject(key, `it ends after ${at} bytes, though it should have ${size}`);
    }
    await file.sync();
  } catch (error) {
    const told = diskError(error);
    if (isDiskError(told)) await rm(path, { force: true });
    throw told;
  }
  // of which of two objects the bytes are is not known where they were exchanged meanwhile
  if ((await store.head(key, signal))?.etag !== etag) {
    await rm(path, { force: true });
    throw invalidObject(key, "it was replaced while it was fetched; try again");
  }
  if (sha256 === null) return;
  const found = await digestOf(path, size, signal);
  if (found === sha256) return;
  await rm(path, { force: true });
  throw invalidObject(key, `its sha-256 is ${found}, its manifest says ${sha256}`);
}
