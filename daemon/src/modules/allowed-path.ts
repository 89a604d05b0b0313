import { realpath } from "node:fs/promises";
import { sep } from "node:path";
import { SquashError } from "@squash/sdk/errors";

/** The real path of what lies below a directory that the operator opened. Throws `invalid_request`, with the same words whatever is there. */
export async function allowedPath(
  kind: "directory" | "file",
  path: string,
  buildDirs: readonly string[],
): Promise<string> {
  const real = await realpath(path).catch(() => null);
  for (const allowed of buildDirs) {
    const root = await realpath(allowed).catch(() => null);
    if (real !== null && root !== null && `${real}${sep}`.startsWith(root === sep ? sep : `${root}${sep}`)) return real;
  }
  const hint = `it is no ${kind} below one of SQUASH_BUILD_DIRS, which the operator sets`;
  throw new SquashError("invalid_request", `Cannot use ${kind} ${JSON.stringify(path)}: ${hint}`);
}
