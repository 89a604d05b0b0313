import { createRequire } from "node:module";
import { PassThrough, Writable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import { LineReader, lineOf, type FromBuilder, type ToBuilder } from "./build-messages.js";
import type { BuildTask, TaskContext } from "./build-task.js";
import { sweepLeftovers } from "./leftovers.js";
import type { ModuleManifest } from "./manifest.js";
import { runTool, type RunTool } from "./run-tool.js";

const deadlineMs = 60 * 60_000;
const memoryMb = 3072;
/** renames and syncs, while nobody can begin to use the module */
const placeMs = 60_000;

/**
 * Does a task in a process of its own, which ends with squashd and when `signal` aborts. What it was told, credentials included, is neither
 * among its arguments nor in its environment. Returns the manifests of what it made. Throws what it throws, and `build_failed` when it breaks.
 */
export async function buildInChild(
  task: BuildTask,
  context: TaskContext,
  run: RunTool = runTool,
): Promise<readonly ModuleManifest[]> {
  const worker = createRequire(import.meta.url).resolve("#build-worker");
  const talk = new Talk(context);
  talk.tell(task);
  try {
    await run([process.execPath, `--max-old-space-size=${memoryMb}`, worker], {
      op: "build module",
      target: task.name,
      deadlineMs,
      signal: AbortSignal.any([context.signal, talk.broken]),
      stdin: talk.input,
      stdout: talk.output,
    });
  } catch (error) {
    // one that was killed in the midst could not clean up
    await sweepLeftovers(task.dataDir);
    throw context.signal.aborted ? error : (talk.failure ?? error);
  } finally {
    talk.end();
  }
  return talk.result();
}

/** What is said with the process. */
class Talk {
  readonly input = new PassThrough();
  readonly output: Writable;
  failure: Error | null = null;
  readonly #context: TaskContext;
  readonly #broken = new AbortController();
  readonly #decoder = new StringDecoder("utf8");
  readonly #reader = new LineReader();
  #manifests: readonly ModuleManifest[] | null = null;
  #placed: { readonly done: () => void; readonly failed: (error: Error) => void } | null = null;

  constructor(context: TaskContext) {
    this.#context = context;
    this.output = new Writable({
      write: (chunk: Buffer, _, done) => {
        try {
          for (const message of this.#reader.add(this.#decoder.write(chunk))) this.#hear(message as FromBuilder);
          done();
        } catch (error) {
          done(error as Error);
        }
      },
    });
  }

  /** Aborts when the process must end since it does not do what it should. */
  get broken(): AbortSignal {
    return this.#broken.signal;
  }

  tell(message: BuildTask | ToBuilder): void {
    if (!this.input.writableEnded) this.input.write(lineOf(message));
  }

  /** Whoever waits for it to put something in place waits no longer. */
  end(): void {
    this.input.end();
    this.#placed?.failed(new SquashError("build_failed", "Cannot build the module: its process ended too early"));
  }

  result(): readonly ModuleManifest[] {
    if (this.failure !== null) throw this.failure;
    if (this.#manifests !== null) return this.#manifests;
    throw new SquashError("build_failed", "Cannot build the module: its process ended without a result");
  }

  #hear(message: FromBuilder): void {
    switch (message.say) {
      case "progress":
        return this.#context.progress(message.line, message.fraction);
      case "finished":
        return void this.#place(message.name);
      case "placed":
        return this.#placed?.done();
      case "done":
        this.#manifests = message.manifests;
        return void this.input.end();
      case "failed": {
        const { code, message: text } = message;
        this.failure ??= code === "internal" ? new Error(text) : new SquashError(code, text);
        this.#placed?.failed(this.failure);
        return void this.input.end();
      }
    }
  }

  async #place(name: string): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    try {
      await this.#context.commit(async () => {
        const placed = new Promise<void>((done, failed) => (this.#placed = { done, failed }));
        timer = setTimeout(() => this.#broken.abort(), placeMs);
        this.tell({ say: "place" });
        await placed;
      }, name);
    } catch (error) {
      this.failure ??= error instanceof Error ? error : new Error(String(error));
      const code = isSquashError(error) ? error.code : "internal";
      this.tell({ say: "refused", code, message: this.failure.message });
    } finally {
      clearTimeout(timer);
      this.#placed = null;
    }
  }
}
