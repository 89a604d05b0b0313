import { constants } from "node:os";
import { isDeepStrictEqual } from "node:util";
import type { Node } from "./nodes.js";
import type { Overlay, Refusal } from "./overlay.js";

/** What `tree.c` prints of a file. */
export interface Seen {
  readonly path: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: string;
  readonly links: number;
  readonly size: number;
  /** bytes that are not in holes */
  readonly data: number;
  readonly hash: number;
  readonly error: number;
  readonly target: string;
  readonly attributes: readonly (readonly [string, string])[];
}

export interface Report {
  readonly results: readonly (Refusal | null)[];
  readonly files: readonly Seen[];
}

const types = { file: 0o100000, directory: 0o040000, symlink: 0o120000, pipe: 0o010000, socket: 0o140000 } as const;
const errorNames = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));
/** overlayfs copies a file up in pieces of 1 MiB from each start of data, with the holes in them; operations write in two such places */
const slack = 2 * 1_048_576 + 65_536;

/** Reads what `tree.c` printed. */
export function parseReport(text: string): Report {
  const lines = text.trimEnd().split("\n");
  const end = lines.indexOf("tree");
  if (end < 0) throw new Error(`this is no report: ${text.slice(0, 500)}`);
  const results = lines.slice(0, end).map((line) => (line === "0" ? null : (errorNames.get(Number(line)) as Refusal)));
  const files = lines.slice(end + 1).map((line) => JSON.parse(line) as Seen);
  return { results, files };
}

/** How the files differ from the model's, one line each. Times that the kernel chose since the last survey become the model's. */
export function differences(overlay: Overlay, files: readonly Seen[]): string[] {
  const seen = new Map(files.map((one) => [one.path, one]));
  const expected = new Map(overlay.all());
  const wrong: string[] = [];
  for (const path of seen.keys()) if (!expected.has(path)) wrong.push(`${path} is there`);
  for (const [path, node] of expected) {
    const found = seen.get(path);
    if (found === undefined) {
      wrong.push(`${path} is not there`);
      continue;
    }
    node.mtime ??= found.mtime;
    const wanted = expectation(path, node);
    const { data, links, ...rest } = found;
    const shown = {
      ...rest,
      links: node.kind === "directory" ? 0 : links,
      attributes: byName(rest.attributes),
    };
    for (const key of Object.keys(wanted) as (keyof typeof wanted)[])
      if (!isDeepStrictEqual(wanted[key], shown[key]))
        wrong.push(`${path}: ${key} is ${JSON.stringify(shown[key])}, not ${JSON.stringify(wanted[key])}`);
    if (node.kind === "file" && data > node.content.written + slack)
      wrong.push(`${path}: has ${data} bytes outside of holes, not ${node.content.written}`);
  }
  return wrong;
}

function byName(attributes: Seen["attributes"]): Seen["attributes"] {
  return attributes.toSorted(([a], [b]) => (a < b ? -1 : 1));
}

function expectation(path: string, node: Node): Omit<Seen, "data"> {
  const leaf = node.kind === "directory" ? null : node;
  return {
    path,
    mode: types[node.kind] | node.mode,
    uid: node.uid,
    gid: node.gid,
    mtime: node.mtime ?? "",
    links: leaf?.links ?? 0,
    size: leaf === null ? 0 : leaf.kind === "symlink" ? leaf.target.length : leaf.content.size,
    hash: leaf?.kind === "file" ? leaf.content.hash() : 0,
    error: 0,
    target: leaf?.target ?? "",
    attributes: byName([...node.attributes]),
  };
}
