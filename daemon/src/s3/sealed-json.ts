import { createHash } from "node:crypto";
import type { SquashError } from "@squash/sdk/errors";
import { invalidObject } from "../core/remote/invalid-object.js";
import type { ObjectContent, ObjectStore, WriteCondition, Written } from "../core/remote/object-store.js";

export interface ReadJson {
  readonly value: Readonly<Record<string, unknown>>;
  readonly etag: string;
  readonly serverMs: number;
}

/** Small objects of JSON that say their own digest, so that no change of a byte goes unseen. */
export class SealedJson {
  readonly #store: Pick<ObjectStore, "read" | "write">;

  constructor(store: Pick<ObjectStore, "read" | "write">) {
    this.#store = store;
  }

  /** null where there is none. Throws `s3_object_invalid` for what is not what was written. */
  async read(
    key: string,
    options: { readonly maxBytes: number; readonly signal: AbortSignal },
  ): Promise<ReadJson | null> {
    const found = await this.#store.read(key, options);
    return found === null ? null : { value: this.#parse(key, found), etag: found.etag, serverMs: found.serverMs };
  }

  /** null where the condition did not hold. */
  async write(
    key: string,
    value: object,
    options: { readonly condition?: WriteCondition; readonly signal: AbortSignal },
  ): Promise<Written | null> {
    const text = JSON.stringify({ ...value, digest: digestOf(JSON.stringify(value)) });
    return this.#store.write(key, Buffer.from(text), options);
  }

  #parse(key: string, { body }: ObjectContent): Readonly<Record<string, unknown>> {
    const value = parseObject(body);
    if (value === null) throw invalid(key, "it is no JSON object");
    const { digest, ...rest } = value;
    if (digest !== digestOf(JSON.stringify(rest)))
      throw invalid(key, "it is not what was written: its digest is another");
    return rest;
  }
}

function parseObject(text: Buffer): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text.toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function invalid(key: string, what: string): SquashError {
  return invalidObject(key, `${what}; put it there again from a machine that has it, or remove it`);
}
