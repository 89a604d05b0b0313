import { SquashError } from "@squash/sdk/errors";
import type { FileType } from "../../core/diff-records.js";
import type { ImageAttributes } from "./erofs-image.js";

/** as many as Linux follows */
const maxLinks = 40;
const maxPathBytes = 4096;
/** looks at modules for one image */
const maxLooks = 2_000;

/** One name in the modules of a stack, as overlayfs would merge them. All of it is chosen by whoever made the modules. */
export interface ViewEntry {
  readonly type: FileType;
  readonly attributes: ImageAttributes;
  /** of a symbolic link */
  readonly target: string;
  readonly size: number;
  /** null where it was not asked for, or is too large */
  readonly content: Buffer | null;
}

/** Looks at one path, of which no link is followed. null where there is nothing. Paths hold a byte in each character (latin1). */
export type LookAt = (path: string, options: { readonly withContent: boolean }) => Promise<ViewEntry | null>;

/** Where a path leads to. */
export interface Place {
  /** names from the root on, none of which is a link */
  readonly path: readonly string[];
  /** null where there is nothing */
  readonly entry: ViewEntry | null;
  /** whether the last name was one of a link */
  readonly byLink: boolean;
}

/** The modules' files, in which links are followed as they would be inside: never out of them, whoever set them. */
export class ModuleView {
  readonly #lookAt: LookAt;
  readonly #known = new Map<string, ViewEntry | null>();
  #looks = 0;

  constructor(lookAt: LookAt) {
    this.#lookAt = lookAt;
  }

  /** Follows links, also that in the last name. null where it leads through what is no directory. Throws `module_invalid` for links without end. */
  async resolve(path: string): Promise<Place | null> {
    const pending = path.split("/").toReversed();
    const done: string[] = [];
    let entry = await this.entry(done);
    let byLink = false;
    let links = 0;
    for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
      if (name === "" || name === ".") continue;
      if (entry !== null && entry.type !== "directory") return null;
      if (name === "..") done.pop();
      else done.push(name);
      entry = await this.entry(done);
      if (entry?.type !== "symlink") continue;
      if (++links > maxLinks || entry.target.length > maxPathBytes)
        throw strange(path, `symbolic links without end, at "${shown(done)}"`);
      byLink = byLink || pending.every((rest) => rest === "");
      done.pop();
      if (entry.target.startsWith("/")) done.length = 0;
      pending.push(...entry.target.split("/").toReversed());
      entry = await this.entry(done);
    }
    return { path: [...done], entry, byLink };
  }

  /** Looks at a path that was resolved, with the content of a file. */
  async read(path: readonly string[]): Promise<ViewEntry | null> {
    this.#count(path);
    return this.#lookAt(path.join("/"), { withContent: true });
  }

  /** What is at a path in which no link but the last is followed. */
  async entry(path: readonly string[]): Promise<ViewEntry | null> {
    const key = path.join("/");
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const isOrphan = path.length > 0 && (await this.entry(path.slice(0, -1)))?.type !== "directory";
    if (!isOrphan) this.#count(path);
    const entry = isOrphan ? null : await this.#lookAt(key, { withContent: false });
    this.#known.set(key, entry);
    return entry;
  }

  #count(path: readonly string[]): void {
    if (++this.#looks > maxLooks || path.length > 255) throw strange(path.join("/"), "too many symbolic links");
  }
}

/** Modules have something in the place of what is to be trusted that cannot be what it should be. */
export function strange(path: string, what: string): SquashError {
  return new SquashError(
    "module_invalid",
    `Cannot lay the proxy's certificate into the sandbox: "/${path.replace(/^\//, "").slice(0, 200)}" of its modules has ${what}; repair that module, or grant no secrets`,
  );
}

function shown(path: readonly string[]): string {
  return `/${path.join("/").slice(0, 200)}`;
}
