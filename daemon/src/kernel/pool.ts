import { FieldWriter } from "./frame.js";
import type { Host } from "./host.js";

/** native/src/host_ops.h has as many processes for this */
const maxTasks = 4;
/** a disk that is slow, with gigabytes to write */
const slow = { timeoutMs: 1_800_000 };
/** after a removal, of several together */
const freeDelayMs = 2_000;
/** what an empty subvolume is said to take */
const emptyBytes = 16_384;

/** The pool of subvolumes, through sq-host. Names are relative to it, as "u/<name>" or "s/<name>". Methods throw `SquashError`. */
export class Pool {
  readonly #host: Host;
  readonly #waiting: (() => void)[] = [];
  #freeing: NodeJS.Timeout | null = null;
  #tasks = 0;
  #flush: { readonly running: Promise<void>; next: Promise<void> | null } | null = null;

  constructor(host: Host) {
    this.#host = host;
  }

  /** Mounts it, unless it is; `image` is in the data directory, or null where that is on a btrfs itself. */
  async mount(image: string | null): Promise<void> {
    await this.#host.request("poolMount", new FieldWriter().string(image ?? ""), slow);
  }

  /** Idempotent. */
  async unmount(): Promise<void> {
    clearTimeout(this.#freeing ?? undefined);
    this.#freeing = null;
    await this.#flush?.running.catch(() => undefined);
    await this.#host.request("poolUnmount", new FieldWriter());
  }

  /** Writes what there is now to the disk. Those who ask while one is under way share the next. */
  flush(): Promise<void> {
    const current = this.#flush;
    if (current === null) return this.#startFlush();
    current.next ??= current.running.catch(() => undefined).then(() => this.#startFlush());
    return current.next;
  }

  /** Returns the bytes that its files take. */
  async snapshot(source: string, name: string): Promise<number> {
    const names = new FieldWriter().string(source).string(name);
    const fields = await this.#task(() => this.#host.request("subvolumeSnapshot", names, slow));
    return withoutEmpty(fields.u64());
  }

  /** Its content is freed some seconds later. Idempotent. */
  async remove(name: string): Promise<void> {
    await this.#task(() => this.#host.requestTwice("subvolumeRemove", new FieldWriter().string(name), slow));
    this.#freeing ??= setTimeout(() => {
      this.#freeing = null;
      this.flush().catch(() => undefined); // the kernel does it by itself, if later
    }, freeDelayMs).unref();
  }

  /** Bytes that the files in a subvolume take, as of some seconds ago. */
  async bytes(name: string): Promise<number> {
    return withoutEmpty((await this.#host.request("subvolumeUse", new FieldWriter().string(name))).u64());
  }

  #startFlush(): Promise<void> {
    const running = this.#task(() => this.#host.requestTwice("poolFlush", new FieldWriter(), slow)).then(
      () => undefined,
    );
    const flush = { running, next: null };
    this.#flush = flush;
    const ended = (): void => {
      if (this.#flush === flush) this.#flush = null;
    };
    running.then(ended, ended);
    return running;
  }

  async #task<T>(work: () => Promise<T>): Promise<T> {
    if (this.#tasks >= maxTasks) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#tasks++;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift(); // which takes the place over
      if (next === undefined) this.#tasks--;
      else next();
    }
  }
}

function withoutEmpty(bytes: bigint): number {
  return Math.max(0, Number(bytes) - emptyBytes);
}
