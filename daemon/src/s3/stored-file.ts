import type { SquashError } from "@squash/sdk/errors";
import { invalidObject } from "../core/remote/invalid-object.js";
import type { Piece } from "./piece-reader.js";
import { maxPieceBytes } from "./pieces.js";

/** How a file lies in the bucket. */
export interface StoredFile {
  /** bytes */
  readonly size: number;
  /** of all of it; null where the pieces' digests are all that is known */
  readonly sha256: string | null;
  /** one object with its bytes, or an object for each piece */
  readonly stored: "whole" | "pieces";
  /** in the order of the file, without gaps */
  readonly pieces: readonly Piece[];
}

/** 80 GiB in pieces of a MiB */
const maxPieces = 81_920;

/** Reads what a manifest in the bucket says, which may be anything. Throws `s3_object_invalid`; `of` is the manifest's key. */
export function parseStoredFile(value: unknown, of: string): StoredFile {
  const { size, sha256, stored, pieces } = (value ?? {}) as Partial<Record<keyof StoredFile, unknown>>;
  const isSize = typeof size === "number" && Number.isSafeInteger(size) && size >= 0;
  const isKind = stored === "pieces" || (stored === "whole" && sha256 !== null);
  const isDigest = sha256 === null || isSha256(sha256);
  if (!isSize || !isKind || !isDigest || !Array.isArray(pieces) || pieces.length > maxPieces) throw invalid(of);
  const read = pieces.map((piece: unknown) => {
    const { sha256: own, size: bytes } = (piece ?? {}) as Partial<Record<keyof Piece, unknown>>;
    if (!isSha256(own) || !Number.isSafeInteger(bytes)) throw invalid(of);
    if ((bytes as number) < 1 || (bytes as number) > maxPieceBytes) throw invalid(of);
    return { sha256: own, size: bytes as number };
  });
  if (read.reduce((sum, piece) => sum + piece.size, 0) !== size) throw invalid(of);
  return { size, sha256, stored, pieces: read };
}

export function isSha256(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
}

function invalid(of: string): SquashError {
  return invalidObject(of, "it does not say how its file is stored");
}
