import { blockBytes, fitsOctal, formatHeader, formatPaxRecord, type TarHeader } from "./tar-header.js";

export interface TarEntry extends TarHeader {
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

const paxHeader = { name: "pax", mode: 0o644, uid: 0, gid: 0, mtimeS: 0, type: "x", linkname: "" };

/** Makes the header of an entry, with a pax header before it for what has no room in one. Its content follows, padded by `padding`. */
export function formatEntry({ xattrs, ...header }: TarEntry): Buffer {
  const records: Buffer[] = [];
  const fitting = (key: string, text: string): string => {
    if (text.length > 100) records.push(formatPaxRecord(key, Buffer.from(text, "latin1")));
    return text.slice(0, 100);
  };
  const octal = (key: string, value: number, width: 8 | 12): number => {
    if (value >= 0 && fitsOctal(value, width)) return value;
    records.push(formatPaxRecord(key, Buffer.from(String(value))));
    return 0;
  };
  const block = formatHeader({
    ...header,
    name: fitting("path", header.name),
    linkname: fitting("linkpath", header.linkname),
    uid: octal("uid", header.uid, 8),
    gid: octal("gid", header.gid, 8),
    size: octal("size", header.size, 12),
    mtimeS: octal("mtime", header.mtimeS, 12),
  });
  // a name with "=" in it would be read as another one, and the rest as its value
  for (const [key, value] of [...xattrs].toSorted(([a], [b]) => (a < b ? -1 : 1)))
    if (!key.includes("=")) records.push(formatPaxRecord(`SCHILY.xattr.${key}`, value));
  if (records.length === 0) return block;
  const pax = Buffer.concat(records);
  return Buffer.concat([formatHeader({ ...paxHeader, size: pax.length }), pax, padding(pax.length), block]);
}

/** What fills up the last block of a content. */
export function padding(size: number): Buffer {
  return Buffer.alloc((blockBytes - (size % blockBytes)) % blockBytes);
}
