import { Writable } from "node:stream";
import { SquashError } from "@squash/sdk/errors";
import type { RunTool } from "./run-tool.js";

const maxDevices = 500;
const maxLineBytes = 65_536;

/**
 * Paths of the devices in a squashfs image, which a confined tool could not unpack; overlayfs' marks of removed files, devices by the number
 * 0/0, are none. Throws `build_failed` for more devices than a root file system has, or for one with an unusual name.
 */
export async function listDevices(
  run: RunTool,
  source: { readonly image: string; readonly name: string },
  options: { readonly deadlineMs: number; readonly signal?: AbortSignal },
): Promise<string[]> {
  const devices: string[] = [];
  const argv = ["unsquashfs", "-quiet", "-no-progress", "-dest", ".", "-lln", source.image] as const;
  const lines = new Lines((line) => {
    const path = deviceIn(line);
    if (path === null) return;
    if (!/^[A-Za-z0-9_][\w./+:-]*$/.test(path))
      throw refused(source.name, `the name of device ${JSON.stringify(path)} has unusual characters`);
    if (devices.push(path) > maxDevices) throw refused(source.name, `it has over ${maxDevices} devices`);
  });
  await run(argv, { op: "list squashfs image of", target: source.name, stdout: lines, ...options });
  return devices;
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
  return new SquashError("build_failed", `Cannot convert module "${name}": ${what}`);
}
