import { isSha256 } from "./stored-file.js";

/** of ours, which are sealed and say where an image's bytes are */
const ownFields = ["digest", "file", "manifest"] as const;
/** of which an older daemon's has at least one */
const olderFields = ["squashfs_sha256", "builder", "built_at", "version", "composefs_digest"] as const;

/** The manifest of a module as older daemons write it, which has neither a seal nor places of bytes; null for what is none. */
export function olderManifest(body: Buffer): Readonly<Record<string, unknown>> | null {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  if (ownFields.some((field) => Object.hasOwn(value, field))) return null;
  return olderFields.some((field) => Object.hasOwn(value, field)) ? (value as Record<string, unknown>) : null;
}

/** The sha-256 of its image that it names, in 64 small hexadecimal digits; null where it names none. Throws `RangeError` for what cannot be one. */
export function olderDigest(manifest: Readonly<Record<string, unknown>>): string | null {
  const { squashfs_sha256: named } = manifest;
  if (named === undefined || named === null || named === "") return null;
  const text = typeof named === "string" ? named.replace(/^sha256:/, "").toLowerCase() : "";
  if (!isSha256(text)) throw new RangeError("it names a digest of its module's image that cannot be one");
  return text;
}
