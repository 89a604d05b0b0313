import { FieldWriter } from "./frame.js";
import type { Operation } from "./host-protocol.js";
import type { Host } from "./host.js";

/** native/src/host_ops.h has as many processes for this */
const maxTasks = 4;
/** a disk that is slow, with gigabytes to write */
const taskTimeoutMs = 1_800_000;
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
    await this.#host.request("poolMount", new FieldWriter().string(image ?? ""), { timeoutMs: taskTimeoutMs });
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
    const fields = await this.#task("subvolumeSnapshot", new FieldWriter().string(source).string(name));
    return withoutEmpty(fields.u64());
  }

  /** Its content is freed some seconds later. Idempotent. */
  async remove(name: string): Promise<void> {
    await this.#task("subvolumeRemove", new FieldWriter().string(name));
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
    const running = this.#task("poolFlush", new FieldWriter()).then(() => undefined);
    const flush = { running, next: null };
    this.#flush = flush;
    const ended = (): void => {
      if (this.#flush === flush) this.#flush = null;
    };
    running.then(ended, ended);
    return running;
  }

  async #task(op: Operation, fields: FieldWriter): ReturnType<Host["request"]> {
    if (this.#tasks >= maxTasks) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#tasks++;
    try {
      return await this.#host.request(op, fields, { timeoutMs: taskTimeoutMs });
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
