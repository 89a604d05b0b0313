import { SquashError } from "@squash/sdk/errors";
import { readRecords, type DiffRecord, type FileType } from "../core/diff-records.js";
import { blockBytes, fitsOctal, formatHeader, formatPaxRecord } from "../modules/oci/tar-header.js";

const whiteoutPrefix = ".wh.";
const typeFlags: Readonly<Partial<Record<FileType, string>>> = { file: "0", symlink: "2", directory: "5", fifo: "6" };
const xattrPrefix = "SCHILY.xattr.";

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
      yield headers(name, "0", { mode: 0, uid: 0, gid: 0, mtimeS: 0 });
      continue;
    }
    const type = typeFlags[record.newType];
    if (type === undefined) continue;
    const name = record.newType === "directory" ? `${path === "" ? "." : path}/` : path;
    yield headers(name, type, record);
    if (record.newContentSize === 0) continue;
    yield* record.contents.after();
    yield Buffer.alloc(padding(record.newContentSize));
  }
  yield Buffer.alloc(2 * blockBytes);
}

type Facts = Pick<DiffRecord, "mode" | "uid" | "gid" | "mtimeS"> &
  Partial<Pick<DiffRecord, "target" | "xattrs" | "newContentSize">>;

function headers(name: string, type: string, facts: Facts): Buffer {
  const { uid, gid, newContentSize = 0, xattrs = new Map<string, Buffer>() } = facts;
  const target = facts.target?.toString("latin1") ?? "";
  const records: Buffer[] = [];
  const note = (key: string, value: string | Buffer): void =>
    void records.push(formatPaxRecord(key, Buffer.isBuffer(value) ? value : Buffer.from(value, "latin1")));
  if (name.length > 100) note("path", name);
  if (target.length > 100) note("linkpath", target);
  if (!fitsOctal(newContentSize, 12)) note("size", String(newContentSize));
  if (facts.mtimeS < 0 || !fitsOctal(facts.mtimeS, 12)) note("mtime", String(facts.mtimeS));
  for (const [key, value] of xattrs) if (!key.includes("=")) note(`${xattrPrefix}${key}`, value);
  const header = formatHeader({
    name: name.slice(0, 100),
    mode: facts.mode,
    uid,
    gid,
    size: fitsOctal(newContentSize, 12) ? newContentSize : 0,
    mtimeS: facts.mtimeS >= 0 && fitsOctal(facts.mtimeS, 12) ? facts.mtimeS : 0,
    type,
    linkname: target.slice(0, 100),
  });
  if (records.length === 0) return header;
  const pax = Buffer.concat(records);
  const before = { name: "pax", mode: 0o644, uid: 0, gid: 0, size: pax.length, mtimeS: 0, type: "x", linkname: "" };
  return Buffer.concat([formatHeader(before), pax, Buffer.alloc(padding(pax.length)), header]);
}

function padding(size: number): number {
  return (blockBytes - (size % blockBytes)) % blockBytes;
}

function cannot(reason: string): SquashError {
  return new SquashError("diff_failed", `Cannot make a tar file of what differs: ${reason}; ask for JSON instead`);
}
