import type { ErrorCode } from "@squash/sdk/protocol";
import type { ModuleManifest } from "./manifest.js";

/**
 * What squashd and a process that builds say to each other: a line of JSON each. The first that the process gets is its task; it ends with
 * `done` or `failed`, and gives up when its input ends before.
 */
export type FromBuilder =
  | { readonly say: "progress"; readonly line: string; readonly fraction?: number }
  /** that a module's images are finished, and wait to be put in place */
  | { readonly say: "finished"; readonly name: string }
  | { readonly say: "placed" }
  | { readonly say: "done"; readonly manifests: readonly ModuleManifest[] }
  | { readonly say: "failed"; readonly code: ErrorCode; readonly message: string };

export type ToBuilder =
  { readonly say: "place" } | { readonly say: "refused"; readonly code: ErrorCode; readonly message: string };

const maxLineBytes = 16 * 1_048_576;

/** Cuts what comes into lines, and reads each. Throws `RangeError` for a line that is too long. */
export class LineReader {
  #rest = "";

  *add(text: string): Generator {
    this.#rest += text;
    for (let end = this.#rest.indexOf("\n"); end >= 0; end = this.#rest.indexOf("\n")) {
      const line = this.#rest.slice(0, end);
      this.#rest = this.#rest.slice(end + 1);
      yield JSON.parse(line) as unknown;
    }
    if (this.#rest.length > maxLineBytes) throw new RangeError("a line is too long");
  }
}

export function lineOf(message: unknown): string {
  return `${JSON.stringify(message)}\n`;
}
