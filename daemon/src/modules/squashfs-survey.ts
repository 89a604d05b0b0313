import { statfs } from "node:fs/promises";
import { Writable } from "node:stream";
import { SquashError } from "@squash/sdk/errors";
import type { RunTool } from "./run-tool.js";

const maxDevices = 500;
const maxLineBytes = 65_536;

/** What an image may unpack to: a small one can hold files without end. */
export interface UnpackBounds {
  readonly files: number;
  readonly bytes: number;
}

/** Bounds for unpacking in a directory: a tar file may have as much, and half of what is free stays so. */
export async function unpackBounds(directory: string): Promise<UnpackBounds> {
  const { bavail, bsize, ffree, files } = await statfs(directory);
  // some file systems have no number of files
  return {
    files: Math.min(2_000_000, files === 0 ? Infinity : ffree / 2),
    bytes: Math.min(32 * 1024 ** 3, (bavail * bsize) / 2),
  };
}

/**
 * Reads the list of files in a squashfs image. Returns the paths of its devices, which a confined tool could not unpack; overlayfs' marks of
 * removed files, devices by the number 0/0, are none. Throws `build_failed` for more devices than a root file system has, for one with an
 * unusual name, and for more files or bytes than `bounds`.
 */
export async function surveySquashfs(
  run: RunTool,
  source: { readonly image: string; readonly name: string; readonly bounds: UnpackBounds },
  options: { readonly deadlineMs: number; readonly signal?: AbortSignal },
): Promise<string[]> {
  const { image, name, bounds } = source;
  const devices: string[] = [];
  let [files, bytes] = [0, 0];
  const argv = ["unsquashfs", "-quiet", "-no-progress", "-dest", ".", "-lln", image] as const;
  const lines = new Lines((line) => {
    bytes += bytesIn(line);
    if (++files > bounds.files || bytes > bounds.bytes)
      throw refused(name, `it unpacks to more than ${boundsText(bounds)}`);
    const path = deviceIn(line);
    if (path === null) return;
    if (!/^[A-Za-z0-9_][\w./+:-]*$/.test(path))
      throw refused(name, `the name of device ${JSON.stringify(path)} has unusual characters`);
    if (devices.push(path) > maxDevices) throw refused(name, `it has over ${maxDevices} devices`);
  });
  await run(argv, { op: "list squashfs image of", target: name, stdout: lines, ...options });
  return devices;
}

function boundsText({ files, bytes }: UnpackBounds): string {
  return `${Math.floor(files)} files or ${Math.floor(bytes / 1_048_576)} MiB, the most for the space that is free`;
}

/** Size of the file in a line such as `-rw-r--r-- 0/0  7 2024-02-03 04:05 ./etc/x`; 0 for what has no content. */
export function bytesIn(line: string): number {
  return Number(/^-\S{9} \d+\/\d+ +(\d+) /.exec(line)?.[1] ?? 0);
}

/** Reads a line such as `crw-rw-rw- 0/0  1,  3 2024-02-03 04:05 ./dev/null`. Null for what is no device, or a whiteout. */
export function deviceIn(line: string): string | null {
  const [, major, minor, path] = /^[bc]\S{9} \d+\/\d+ +(\d+), *(\d+) \S+ \S+ (?:\.\/)?(.+)$/.exec(line) ?? [];
  if (path === undefined || (line.startsWith("c") && Number(major) === 0 && Number(minor) === 0)) return null;
  return path;
}

/** Cuts text into lines; fails at one that is too long to be kept. */
class Lines extends Writable {
  readonly #each: (line: string) => void;
  #rest = "";

  constructor(each: (line: string) => void) {
    super();
    this.#each = each;
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: (error?: Error) => void): void {
    const lines = (this.#rest + chunk.toString("latin1")).split("\n");
    this.#rest = lines.pop() ?? "";
    try {
      if (this.#rest.length > maxLineBytes) throw new Error("a line of it is too long");
      for (const line of lines) this.#each(line);
      done();
    } catch (error) {
      done(error as Error);
    }
  }
}

function refused(name: string, what: string): SquashError {
  return new SquashError("build_failed", `Cannot unpack module "${name}": ${what}`);
}
