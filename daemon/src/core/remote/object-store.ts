/** What is known of an object without reading it. */
export interface ObjectFacts {
  readonly key: string;
  readonly size: number;
  /** as the store gives it, for conditions; quotes included */
  readonly etag: string;
  /** when it was written, by the store's clock, in ms */
  readonly modifiedMs: number;
}

export interface ObjectContent extends ObjectFacts {
  readonly body: Buffer;
  /** the store's clock when it answered, in ms: the one clock that all machines share */
  readonly serverMs: number;
}

/** What must hold of the object that is there, for it to be written. */
export type WriteCondition =
  | { readonly kind: "absent" }
  /** it is the very one that had this etag */
  | { readonly kind: "same"; readonly etag: string };

export interface WriteOptions {
  readonly condition?: WriteCondition;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** What a write was answered with. */
export interface Written {
  readonly etag: string;
  /** the store's clock when it answered, in ms */
  readonly serverMs: number;
}

/**
 * A bucket, or the part of one below a prefix, with which keys begin that this is told. Every method tries again where that can help, and throws
 * `SquashError`: `s3_unreachable` where the store cannot be reached or is not well, `s3_denied` where it refuses us, `s3_failed` for any other
 * refusal, `cancelled` once the signal aborts.
 */
export interface ObjectStore {
  /** A small object, whole; null where there is none. Throws `s3_object_invalid` for more than `maxBytes`. */
  read(
    key: string,
    options: { readonly maxBytes: number; readonly signal: AbortSignal },
  ): Promise<ObjectContent | null>;
  /** Bytes from `start` on to before `end`. Throws `s3_object_missing`. */
  readRange(
    key: string,
    range: { readonly start: number; readonly end: number },
    signal: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array>>;
  /** null where there is none */
  head(key: string, signal: AbortSignal): Promise<ObjectFacts | null>;
  /** Writes an object whole. null where the condition did not hold, which is also the answer to who finds his own earlier try. */
  write(key: string, body: Uint8Array, options: WriteOptions): Promise<Written | null>;
  /** All objects whose keys begin so, in the order of their keys. */
  list(prefix: string, signal: AbortSignal): AsyncIterable<ObjectFacts>;
  /** Idempotent. */
  remove(keys: readonly string[], signal: AbortSignal): Promise<void>;
}
