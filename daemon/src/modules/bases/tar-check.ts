import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { extract, type Header } from "tar-stream";
import { SquashError } from "@squash/sdk/errors";

const maxEntries = 2_000_000;
const maxExcluded = 500;
const devices: readonly (string | null | undefined)[] = ["character-device", "block-device"];

/** What a tar file holds that a packer must know beforehand. */
export interface TarFacts {
  /** paths without a `/` in front */
  readonly devices: readonly string[];
  /** seconds since 1970, of the entry that was modified last */
  readonly latestMtimeS: number;
}

/**
 * Reads an uncompressed tar file through. Throws `build_failed` for an entry that is absolute or climbs out with `..`, and for what is no
 * tar file.
 */
export async function checkTar(path: string, signal?: AbortSignal): Promise<TarFacts> {
  const found: string[] = [];
  let entries = 0;
  let latestMtimeS = 0;
  const tar = extract();
  tar.on("entry", (header, stream, next) => {
    stream.on("error", () => {
      // the pipeline throws it as well; if nobody listened here it would end the process
    });
    try {
      checkEntry(header);
      latestMtimeS = Math.max(latestMtimeS, secondsOf(header.mtime));
      if (++entries > maxEntries) throw refused(`it has over ${maxEntries} entries`);
      if (devices.includes(header.type)) found.push(deviceName(header.name));
      if (found.length > maxExcluded) throw refused(`it has over ${maxExcluded} devices`);
    } catch (error) {
      next(error as Error);
      return;
    }
    stream.on("end", () => next());
    stream.resume();
  });
  try {
    await pipeline(createReadStream(path), tar, signal === undefined ? {} : { signal });
  } catch (cause) {
    if (cause instanceof SquashError) throw cause;
    if (signal?.aborted === true) throw new SquashError("cancelled", "Cannot check the tar file: cancelled", { cause });
    throw refused(`it is damaged or no tar file (${(cause as Error).message})`, cause);
  }
  if (entries === 0) throw refused("it has no entries");
  return { devices: found, latestMtimeS };
}

function checkEntry({ name, type, linkname }: Header): void {
  for (const path of type === "link" ? [name, linkname] : [name]) {
    const what = path.startsWith("/") ? "an absolute path" : path.split("/").includes("..") ? 'a path with ".."' : null;
    if (what !== null) throw refused(`entry ${JSON.stringify(path)} is ${what}`);
    if (path.includes("\0")) throw refused(`entry ${JSON.stringify(path)} has a zero byte in its name`);
  }
}

/** The name as sqfstar takes it, which may read blanks and patterns in it. */
function deviceName(name: string): string {
  const plain = name.replace(/^(\.\/)+/, "").replace(/\/+$/, "");
  if (!/^[A-Za-z0-9_][\w./+:-]*$/.test(plain))
    throw refused(`the name of device ${JSON.stringify(name)} has unusual characters`);
  return plain;
}

/** As an image holds it; a time that it cannot hold counts as none. */
function secondsOf(time: Date | undefined): number {
  const seconds = Math.floor((time?.getTime() ?? 0) / 1000);
  return seconds >= 0 && seconds <= 0xffffffff ? seconds : 0;
}

function refused(found: string, cause?: unknown): SquashError {
  return new SquashError("build_failed", `Cannot use the tar file: ${found}`, cause === undefined ? {} : { cause });
}
