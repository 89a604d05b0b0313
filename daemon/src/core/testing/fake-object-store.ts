import { createHash } from "node:crypto";
import { SquashError } from "@squash/sdk/errors";
import type { ObjectContent, ObjectFacts, ObjectStore, WriteOptions, Written } from "../remote/object-store.js";

interface StoredObject extends ObjectFacts {
  readonly body: Buffer;
}

/** What becomes of one request. */
export interface Fate {
  /** ms until it reaches the store, also when nobody waits for it any more */
  readonly there?: number;
  /** ms until the answer is back */
  readonly back?: number;
  /**
   * `unreachable`: it never reaches the store; `unanswered`: it is done, and the answer is lost; `repeated`: it is done, the answer is lost, and it is
   * sent again, as a client does by itself
   */
  readonly fault?: "unreachable" | "unanswered" | "repeated";
}

export interface FakeObjectStoreOptions {
  /** the store's clock, in ms; @default Date.now */
  readonly serverMs?: () => number;
  /** lets ms pass; @default not at all */
  readonly sleep?: (ms: number) => Promise<void>;
}

/** A store of objects in memory. It is as strict as a real one about conditions, and gives requests what fate a test wants. */
export class FakeObjectStore implements ObjectStore {
  readonly objects = new Map<string, StoredObject>();
  /** asked for each request; by default all goes well */
  fate: (operation: "read" | "write" | "head" | "list" | "remove", key: string) => Fate = () => ({});
  /** told of each write that was done, in their order */
  written: (key: string, body: Buffer) => void = () => undefined;
  readonly #serverMs: () => number;
  readonly #sleep: (ms: number) => Promise<void>;

  constructor({ serverMs = Date.now, sleep = () => Promise.resolve() }: FakeObjectStoreOptions = {}) {
    this.#serverMs = serverMs;
    this.#sleep = sleep;
  }

  async read(
    key: string,
    { maxBytes, signal }: { readonly maxBytes: number; readonly signal: AbortSignal },
  ): Promise<ObjectContent | null> {
    return this.#request(this.fate("read", key), signal, () => {
      const found = this.objects.get(key);
      if (found === undefined) return null;
      if (found.size > maxBytes) throw new SquashError("s3_object_invalid", `Cannot read "${key}": it is too large`);
      return { ...found, serverMs: this.#serverMs() };
    });
  }

  async readRange(
    key: string,
    { start, end }: { readonly start: number; readonly end: number },
    signal: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array>> {
    const bytes = await this.#request(this.fate("read", key), signal, () => {
      const found = this.objects.get(key);
      if (found === undefined) throw new SquashError("s3_object_missing", `Cannot read "${key}": there is none`);
      return found.body.subarray(start, end);
    });
    return (async function* () {
      yield await Promise.resolve(bytes);
    })();
  }

  head(key: string, signal: AbortSignal): Promise<ObjectFacts | null> {
    return this.#request(this.fate("head", key), signal, () => factsOf(this.objects.get(key)));
  }

  write(key: string, body: Uint8Array, options: WriteOptions): Promise<Written | null> {
    return this.#request(this.fate("write", key), options.signal, () => this.#put(key, Buffer.from(body), options));
  }

  async *list(prefix: string, signal: AbortSignal): AsyncIterable<ObjectFacts> {
    const keys = await this.#request(this.fate("list", prefix), signal, () => [...this.objects.keys()].toSorted());
    for (const key of keys) {
      const facts = key.startsWith(prefix) ? factsOf(this.objects.get(key)) : null;
      if (facts !== null) yield facts;
    }
  }

  remove(keys: readonly string[], signal: AbortSignal): Promise<void> {
    return this.#request(this.fate("remove", keys[0] ?? ""), signal, () => {
      for (const key of keys) this.objects.delete(key);
    });
  }

  #put(key: string, body: Buffer, { condition }: WriteOptions): Written | null {
    const there = this.objects.get(key);
    if (condition?.kind === "absent" && there !== undefined) return null;
    if (condition?.kind === "same" && there?.etag !== condition.etag) return null;
    // of the content alone, as stores have it: the same bytes are the same etag
    const etag = `"${createHash("md5").update(body).digest("hex")}"`;
    const serverMs = this.#serverMs();
    this.objects.set(key, { key, size: body.length, etag, modifiedMs: serverMs, body });
    this.written(key, body);
    return { etag, serverMs };
  }

  /** What was sent reaches the store whether or not somebody still waits for the answer. */
  async #request<T>({ there = 0, back = 0, fault }: Fate, signal: AbortSignal, work: () => T): Promise<T> {
    if (signal.aborted) throw new SquashError("cancelled", "Cannot ask the store: the caller went away");
    await this.#sleep(there);
    if (fault === "unreachable") throw unreachable();
    let answer = work();
    if (fault === "repeated") answer = work();
    await this.#sleep(back);
    if (fault === "unanswered") throw unreachable();
    return answer;
  }
}

function factsOf(object: StoredObject | undefined): ObjectFacts | null {
  if (object === undefined) return null;
  const { key, size, etag, modifiedMs } = object;
  return { key, size, etag, modifiedMs };
}

function unreachable(): SquashError {
  return new SquashError("s3_unreachable", "Cannot reach the store");
}
