/** Shapes of `GET /v1/sandboxes/:id/diff`; a part of the wire contract in protocol.ts. */

export type DiffFileType = "fifo" | "character" | "directory" | "block" | "file" | "symlink" | "socket";

export type DiffChange = "mode" | "owner" | "mtime" | "xattrs" | "content" | "type";

/** One path that differs. */
export interface DiffEntry {
  /** from "/" on; bytes that are no UTF-8 are U+FFFD */
  path: string;
  /** the path's bytes, only where `path` cannot say them */
  path_base64?: string;
  /** of the newer side, or of the older where there is no newer */
  type: DiffFileType;
  /** only where it is another one than before */
  old_type?: DiffFileType;
  /** bytes, of a link those of its target; null where there is none */
  old_size: number | null;
  new_size: number | null;
  /** what differs; empty where one side has no such path */
  changes: DiffChange[];
}

/** What differs between two states of files; every list sorted by path, name by name. */
export interface DiffAnswer {
  ok: true;
  /** as both were understood */
  from: string;
  to: string;
  added: DiffEntry[];
  /** another content, target, device or type */
  modified: DiffEntry[];
  deleted: DiffEntry[];
  /** the same content with another owner, mode, time or attributes; a directory's time does not count */
  metadata: DiffEntry[];
  /** of all that differs, listed or not */
  totals: { added: number; modified: number; deleted: number; metadata: number };
  /** whether there is more than is listed */
  truncated: boolean;
}

/** What differs in one path. */
export interface DiffFileAnswer {
  ok: true;
  from: string;
  to: string;
  kind: "same" | "added" | "modified" | "deleted" | "metadata";
  entry: DiffEntry;
  /** whether a side is no text: it holds NUL or is no UTF-8 */
  binary: boolean;
  /** whether a side is too large for a text to be made of it */
  too_large: boolean;
  /** a unified diff; "" where the contents are the same, null where none can be made */
  diff: string | null;
}

/** Which two states: `base` (the modules alone), `live`, a label, `@<sandbox>` or `@<sandbox>/<label>`. */
export interface DiffRequest {
  /** default: the snapshot taken or restored last, or else `base` */
  from?: string;
  /** default: `live` */
  to?: string;
  /** entries that are listed: 1 to 100,000, 10,000 by default */
  limit?: number;
}
