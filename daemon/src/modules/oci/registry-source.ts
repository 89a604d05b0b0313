import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { SquashError } from "@squash/sdk/errors";
import type { BlobCache } from "./blob-cache.js";
import { loadImage, type ImageParts, type LocalImage } from "./image.js";
import { imageError } from "./image-error.js";
import { acceptedTypes, type Descriptor } from "./image-schema.js";
import type { Platform } from "./platform.js";
import type { Reference } from "./reference.js";
import { PassingError, readBody, RegistryHttp, type RegistryOptions } from "./registry-http.js";
import type { FileRange } from "./tar-reader.js";

const maxManifestBytes = 4 * 1024 ** 2;
const attempts = 5;
const maxDelayMs = 10_000;

export interface PullOptions extends RegistryOptions {
  readonly platform: Platform;
  readonly cache: BlobCache;
  readonly signal?: AbortSignal;
  /** for all of it; @default 30 minutes */
  readonly deadlineMs?: number;
  /** before the second attempt, doubled for each further one; @default 500 */
  readonly delayMs?: number;
  /** bytes of all layers, as they are sent; @default 16 GiB */
  readonly maxBytes?: number;
  readonly progress?: (line: string) => void;
}

/** Gets an image from its registry into the cache. Throws `build_failed` or `cancelled`. */
export async function pullImage(reference: Reference, options: PullOptions): Promise<LocalImage> {
  const { signal, deadlineMs = 30 * 60_000, maxBytes = 16 * 1024 ** 3 } = options;
  const deadline = AbortSignal.timeout(deadlineMs);
  const { registry, repository, tag, digest } = reference;
  await using http = new RegistryHttp(reference, options);
  const ending = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
  const parts = new RegistryParts(http, options, ending);
  try {
    const root = await parts.root(digest ?? tag ?? "latest", digest);
    const name = `${registry}/${repository}${tag === null ? "" : `:${tag}`}${digest === null ? "" : `@${digest}`}`;
    return await loadImage(root, parts, { platform: options.platform, reference: name, maxBytes });
  } catch (cause) {
    if (cause instanceof SquashError) throw cause;
    if (signal?.aborted === true) throw new SquashError("cancelled", "Cannot get the image: cancelled", { cause });
    if (deadline.aborted) throw imageError(`getting it did not end within ${deadlineMs / 1000} s`, cause);
    if (cause instanceof PassingError) throw imageError(`${cause.message}, also after ${attempts} attempts`, cause);
    throw cause;
  }
}

class RegistryParts implements ImageParts {
  readonly #http: RegistryHttp;
  readonly #options: PullOptions;
  readonly #signal: AbortSignal;

  constructor(http: RegistryHttp, options: PullOptions, signal: AbortSignal) {
    this.#http = http;
    this.#options = options;
    this.#signal = signal;
  }

  async root(name: string, digest: string | null): Promise<Buffer> {
    const bytes = await this.#repeat(async () => {
      const answer = await this.#http.get(`manifests/${name}`, { accept: acceptedTypes }, this.#signal);
      return readBody(answer, maxManifestBytes, "its manifest");
    });
    const found = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    if (digest !== null && found !== digest)
      throw imageError(`its manifest has the digest ${found}, needed is ${digest}`);
    return bytes;
  }

  manifest({ digest }: Descriptor): Promise<Buffer> {
    return this.root(digest, digest);
  }

  async blob(descriptor: Descriptor): Promise<FileRange> {
    const { cache, progress } = this.#options;
    const cached = await cache.find(descriptor);
    if (cached !== null) return cached;
    progress?.(`downloading ${descriptor.digest.slice(0, 19)} (${(descriptor.size / 1_048_576).toFixed(1)} MiB)`);
    await using draft = await cache.begin(descriptor);
    try {
      await this.#repeat(async () => {
        if (draft.size < descriptor.size || descriptor.size === 0) await this.#download(descriptor, draft);
      });
      return draft.check();
    } catch (cause) {
      if (cause instanceof RangeError) throw imageError(`${descriptor.digest} ${cause.message}`, cause);
      throw cause;
    }
  }

  async #download({ digest, size }: Descriptor, draft: Awaited<ReturnType<BlobCache["begin"]>>): Promise<void> {
    const wanted = draft.size;
    const range = wanted === 0 ? {} : { range: `bytes=${wanted}-` };
    const { statusCode, headers, body } = await this.#http.get(`blobs/${digest}`, range, this.#signal);
    try {
      if (statusCode === 200) await draft.restart();
      else if (wanted === 0 || !String(headers["content-range"]).startsWith(`bytes ${wanted}-`))
        throw imageError("the registry sends another part of a layer than it was asked for");
      for await (const chunk of body as AsyncIterable<Buffer>) await draft.write(chunk);
    } catch (cause) {
      body.destroy();
      this.#signal.throwIfAborted();
      if (cause instanceof SquashError || cause instanceof RangeError || isDiskError(cause)) throw cause;
      throw new PassingError(`${digest} is cut off (${(cause as Error).message})`, { cause });
    }
    if (draft.size < size) throw new PassingError(`${digest} is cut off (${draft.size} of ${size} bytes)`);
  }

  async #repeat<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof PassingError) || attempt === attempts) throw error;
      }
      const delayMs = Math.min((this.#options.delayMs ?? 500) * 2 ** (attempt - 1), maxDelayMs);
      await sleep(delayMs * (0.5 + Math.random() / 2), undefined, { signal: this.#signal });
    }
  }
}

/** An error of the files that are written, which no other attempt mends. */
function isDiskError(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT", "EIO", "EFBIG", "EROFS"].includes((error as NodeJS.ErrnoException).code ?? "");
}
