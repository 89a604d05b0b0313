import { SquashError } from "@squash/sdk/errors";
import { readRecords, type FileType } from "../core/diff-records.js";
import { formatEntry, padding } from "../modules/oci/tar-entry.js";
import { blockBytes } from "../modules/oci/tar-header.js";

const whiteoutPrefix = ".wh.";
const typeFlags: Readonly<Partial<Record<FileType, string>>> = { file: "0", symlink: "2", directory: "5", fifo: "6" };
const whiteout = {
  type: "0",
  mode: 0,
  uid: 0,
  gid: 0,
  mtimeS: 0,
  size: 0,
  linkname: "",
  xattrs: new Map<string, Buffer>(),
};

/**
 * Throws `diff_failed` for a name that means a deletion in a layer, and for devices, which are left out of none silently. Before the tar file
 * begins, as there is no way to say so within it.
 */
export async function checkTar(chunks: AsyncIterable<Buffer>): Promise<void> {
  for await (const { kind, path, newType } of readRecords(chunks)) {
    const name = path.subarray(path.lastIndexOf("/") + 1);
    if (kind !== "deleted" && name.toString("latin1").startsWith(whiteoutPrefix))
      throw cannot(`"/${path.toString().slice(0, 200)}" would mean a deletion`);
    if (newType === "character" || newType === "block") throw cannot(`"/${path.toString().slice(0, 200)}" is a device`);
  }
}

/** What is new or changed, whole, in the format of an OCI layer; what is gone as a whiteout, and sockets not at all. */
export async function* writeTar(chunks: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array> {
  let gone: string | null = null; // what lies below a path that is no directory any more needs no whiteout
  for await (const record of readRecords(chunks)) {
    const path = record.path.toString("latin1");
    if (gone !== null && path.startsWith(gone)) continue;
    gone = record.oldType === "directory" && record.newType !== "directory" ? `${path}/` : null;
    if (record.newType === null) {
      const slash = path.lastIndexOf("/") + 1;
      const name = `${path.slice(0, slash)}${whiteoutPrefix}${path.slice(slash)}`;
      yield formatEntry({ ...whiteout, name });
      continue;
    }
    const type = typeFlags[record.newType];
    if (type === undefined) continue;
    const name = record.newType === "directory" ? `${path === "" ? "." : path}/` : path;
    const { mode, uid, gid, mtimeS, xattrs, newContentSize: size } = record;
    yield formatEntry({ name, type, mode, uid, gid, mtimeS, xattrs, size, linkname: record.target.toString("latin1") });
    if (size === 0) continue;
    yield* record.contents.after();
    yield padding(size);
  }
  yield Buffer.alloc(2 * blockBytes);
}

function cannot(reason: string): SquashError {
  return new SquashError("diff_failed", `Cannot make a tar file of what differs: ${reason}; ask for JSON instead`);
}
