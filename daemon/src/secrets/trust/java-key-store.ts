import { createHash } from "node:crypto";

/*
 * The format JKS: u32 magic, u32 version, u32 count of entries; each entry u32 kind, its alias, i64 milliseconds since 1970, and of a
 * certificate its type and u32 bytes of it; at the end SHA-1 of the password in UTF-16, the words below, and all that comes before. Texts are
 * u16 bytes and modified UTF-8. All numbers are big-endian. Source: OpenJDK, sun.security.provider.JavaKeyStore
 */
const magic = 0xfeed_feed;
const version = 2;
const headBytes = 12;
const digestBytes = 20;
const kinds = { key: 1, certificate: 2 } as const;
const words = "Mighty Aphrodite";
const maxEntries = 10_000;
/** what everybody has for these files, which are no secret */
const password = "changeit";

/** A store of trusted certificates, in DER; their aliases are numbers. */
export function javaKeyStore(certificates: readonly Buffer[]): Buffer {
  return sealed(
    certificates.map((certificate, index) => trustedEntry(`squash-${index}`, certificate)),
    certificates.length,
  );
}

/** A store with one more certificate; the others stay as they are. null for what is none of these stores. */
export function withTrusted(store: Buffer, alias: string, certificate: Buffer): Buffer | null {
  const count = countEntries(store);
  if (count === null) return null;
  const entries = store.subarray(headBytes, store.length - digestBytes);
  return sealed([entries, trustedEntry(alias, certificate)], count + 1);
}

function sealed(entries: readonly Buffer[], count: number): Buffer {
  const head = Buffer.alloc(headBytes);
  head.writeUInt32BE(magic, 0);
  head.writeUInt32BE(version, 4);
  head.writeUInt32BE(count, 8);
  const content = Buffer.concat([head, ...entries]);
  const secret = Buffer.from(password, "utf16le").swap16();
  const digest = createHash("sha1").update(secret).update(words).update(content).digest();
  return Buffer.concat([content, digest]);
}

function trustedEntry(alias: string, certificate: Buffer): Buffer {
  const facts = Buffer.alloc(12);
  facts.writeUInt32BE(kinds.certificate, 0);
  const rest = Buffer.alloc(4);
  rest.writeUInt32BE(certificate.length, 0);
  // since when it is there, which is nobody's concern: the same certificates give the same bytes
  const time = Buffer.alloc(8);
  return Buffer.concat([facts.subarray(0, 4), text(alias), time, text("X.509"), rest, certificate]);
}

/** ASCII only, which modified UTF-8 has as it is. */
function text(value: string): Buffer {
  const bytes = Buffer.from(value, "latin1");
  const size = Buffer.alloc(2);
  size.writeUInt16BE(bytes.length, 0);
  return Buffer.concat([size, bytes]);
}

/** Goes through all entries. null where they are not whole, or not certificates alone. */
function countEntries(store: Buffer): number | null {
  if (store.length < headBytes + digestBytes) return null;
  if (store.readUInt32BE(0) !== magic || store.readUInt32BE(4) !== version) return null;
  const count = store.readUInt32BE(8);
  const end = store.length - digestBytes;
  if (count > maxEntries) return null;
  let at = headBytes;
  try {
    for (let entry = 0; entry < count; entry++) {
      if (store.readUInt32BE(at) !== kinds.certificate) return null;
      at += 4;
      at += 2 + store.readUInt16BE(at) + 8;
      at += 2 + store.readUInt16BE(at);
      at += 4 + store.readUInt32BE(at);
      if (at > end) return null;
    }
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
  return at === end ? count : null;
}
