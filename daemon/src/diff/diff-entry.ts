import type { DiffEntry } from "@squash/sdk/protocol";
import type { DiffRecord } from "../core/diff-records.js";

/** A record as the API shows it. */
export function entryOf(record: DiffRecord): DiffEntry {
  const { path, oldType, newType, oldSize, newSize, changes } = record;
  const type = newType ?? oldType;
  if (type === null) throw new RangeError("a record is of nothing");
  return {
    path: `/${path.toString()}`,
    ...(!isText(path) && { path_base64: Buffer.concat([Buffer.from("/"), path]).toString("base64") }),
    type,
    ...(oldType !== null && oldType !== type && { old_type: oldType }),
    old_size: oldType === null ? null : oldSize,
    new_size: newType === null ? null : newSize,
    changes: [...changes],
  };
}

/** Whether bytes are UTF-8 that stays the same when it is decoded. */
export function isText(bytes: Buffer): boolean {
  return Buffer.from(bytes.toString()).equals(bytes);
}
