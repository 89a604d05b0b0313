import { isSquashError } from "@squash/sdk/errors";
import type { ModuleManifest } from "./manifest.js";
import { UsageError } from "./mkbase-options.js";

export interface CommandOutput {
  out(text: string): void;
  err(text: string): void;
}

/** Runs a builder of the command line. Returns the exit status: 0 done, 1 failed, 2 wrong usage. */
export async function runBuilder(
  { verb, usage }: { readonly verb: string; readonly usage: string },
  { args, io, signal }: { readonly args: readonly string[]; readonly io: CommandOutput; readonly signal: AbortSignal },
  work: () => Promise<void>,
): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    io.out(usage);
    return 0;
  }
  try {
    await work();
    return 0;
  } catch (error) {
    if (error instanceof UsageError) {
      io.err(`squashd ${verb}: ${error.message}\n\n${usage}`);
      return 2;
    }
    if (!signal.aborted && !isSquashError(error) && !isSystemError(error)) throw error;
    io.err(`squashd ${verb}: ${signal.aborted ? "interrupted, nothing was made" : (error as Error).message}\n`);
    return 1;
  }
}

/** Says what was made, how large it is, and how long that took since `started`, a time of `performance.now()`. */
export function tellMade(io: CommandOutput, manifests: readonly ModuleManifest[], started: number): void {
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  for (const { name, files } of manifests) {
    const sizes = Object.entries(files).map(([file, { size }]) => `${file.slice(name.length + 1)} ${mebibytes(size)}`);
    io.out(`${name}  ${sizes.join(", ")}  in ${seconds} s\n`);
  }
}

/** A size for people. */
export function mebibytes(bytes: number): string {
  return `${(bytes / 1_048_576).toFixed(1)} MiB`;
}

/** An error of the operating system, such as a full disk, in distinction to a bug. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "errno" in error;
}
