import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { SquashError } from "@squash/sdk/errors";

export type DigestRequest =
  | { readonly kind: "open"; readonly path: string }
  | { readonly kind: "grown"; readonly upTo: number }
  | { readonly kind: "end" };

export type DigestAnswer =
  { readonly kind: "end"; readonly sha256: string } | { readonly kind: "error"; readonly message: string };

// by name, so that it is found from the sources as well, where only the compiled thread can run
const thread = createRequire(import.meta.url).resolve("#digest-thread");

/**
 * The sha-256 of a file that is being written, made in a thread of its own as far as there are bytes without a gap: once the last ones are
 * there, next to nothing is left to be read.
 */
export class GrowingDigest implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #ended: Promise<string>;
  readonly #ends: readonly number[];
  readonly #there = new Set<number>();
  #next = 0;

  /** `ends` are the positions at which the file's pieces end, in their order. */
  constructor(path: string, ends: readonly number[]) {
    this.#ends = ends;
    this.#worker = new Worker(thread, { name: "digest", resourceLimits: { maxOldGenerationSizeMb: 64 } });
    this.#ended = new Promise((resolve, reject) => {
      const fail = (reason: string): void =>
        reject(new SquashError("s3_failed", `Cannot check what the bucket has sent: ${reason}`));
      this.#worker.on("message", (answer: DigestAnswer) =>
        answer.kind === "end" ? resolve(answer.sha256) : fail(answer.message),
      );
      this.#worker.on("error", (error) => fail(error.message));
      this.#worker.on("exit", () => fail("it was called off"));
    });
    this.#ended.catch(() => undefined); // told to who asks for the end
    this.#say({ kind: "open", path });
  }

  /** A piece is in the file now, by its number. */
  add(index: number): void {
    this.#there.add(index);
    const before = this.#next;
    while (this.#there.delete(this.#next)) this.#next++;
    if (this.#next > before) this.#say({ kind: "grown", upTo: this.#ends[this.#next - 1] ?? 0 });
  }

  /** The digest of all of it, which must be there. Throws `s3_failed` where the file cannot be read. */
  end(): Promise<string> {
    this.#say({ kind: "end" });
    return this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }

  #say(request: DigestRequest): void {
    this.#worker.postMessage(request);
  }
}

/** The sha-256 of a file that has all of its `size` bytes. Throws `s3_failed` where it cannot be read, `cancelled`. */
export async function digestOf(path: string, size: number, signal: AbortSignal): Promise<string> {
  await using digest = new GrowingDigest(path, [size]);
  const stop = (): void => void digest[Symbol.asyncDispose]();
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  digest.add(0);
  try {
    return await digest.end();
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new SquashError("cancelled", "Cannot check what the bucket has sent: cancelled", { cause: error });
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
