const maxNameBytes = 255;
const maxPathBytes = 4096;
const whiteout = ".wh.";
const reserved = ".wh..wh.";

/** What the name of a layer's entry means. Source: OCI image specification, "Image Layer Filesystem Changeset". */
export interface EntryPath {
  readonly kind: "plain" | "whiteout" | "opaque" | "ignored";
  /** names from the root down, a byte in each character; of what is removed for a whiteout, of the directory for an opaque one */
  readonly path: readonly string[];
}

/** Reads the name of an entry; a `/` in front counts as none. Throws `RangeError` for one that climbs, or that no file can have. */
export function parseEntryPath(name: string): EntryPath {
  const path = splitPath(name);
  const last = path.at(-1) ?? "";
  const parent = path.slice(0, -1);
  // what AUFS kept for itself
  if (parent.some((each) => each.startsWith(reserved))) return { kind: "ignored", path: parent };
  if (parent.some((each) => each.startsWith(whiteout))) throw refused(name, "lies below a whiteout");
  if (!last.startsWith(whiteout)) return { kind: "plain", path };
  if (last === `${reserved}.opq`) return { kind: "opaque", path: parent };
  if (last.startsWith(reserved)) return { kind: "ignored", path: parent };
  const removed = last.slice(whiteout.length);
  if (removed === "" || removed === "." || removed === "..") throw refused(name, "is a whiteout of no file");
  return { kind: "whiteout", path: [...parent, removed] };
}

/** Names from the root down. Throws `RangeError`. */
export function splitPath(name: string): string[] {
  if (name === "") throw refused(name, "has no name");
  if (name.includes("\0")) throw refused(name, "has a zero byte in its name");
  if (name.length > maxPathBytes) throw refused(name, `is longer than ${maxPathBytes} bytes`);
  const path = name.split("/").filter((each) => each !== "" && each !== ".");
  for (const each of path) {
    if (each === "..") throw refused(name, 'is a path with ".."');
    if (each.length > maxNameBytes) throw refused(name, `has a name of more than ${maxNameBytes} bytes`);
  }
  return path;
}

function refused(name: string, what: string): RangeError {
  const shown = name.length > 200 ? `${name.slice(0, 200)}…` : name;
  return new RangeError(`entry ${JSON.stringify(shown)} ${what}`);
}
