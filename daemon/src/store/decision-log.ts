import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { NetworkDecision } from "@squash/sdk/protocol";

export interface DecisionLogOptions {
  /** of one file */
  readonly maxBytes: number;
  /** the one that is written, and older ones */
  readonly files: number;
  readonly report: (error: unknown) => void;
}

const usual = { maxBytes: 16 * 1_048_576, files: 4 };
const flushMs = 200;
/** lines that may wait for the disk; beyond it they are counted, and the count is written */
const maxWaiting = 20_000;
const readBytes = 256 * 1024;
const name = "egress.jsonl";

/**
 * What was decided about everything that sandboxes wanted to reach: one JSON object a line, only ever appended to, in `egress.jsonl`, with
 * older files as `egress.jsonl.1` and so on. Writing waits for nobody; a disk that stands still costs lines, which are counted.
 */
export class DecisionLog {
  readonly #folder: string;
  readonly #options: DecisionLogOptions;
  #waiting: string[] = [];
  #lost = 0;
  #file: FileHandle | null = null;
  #size = 0;
  #timer: NodeJS.Timeout | null = null;
  #flushing: Promise<void> = Promise.resolve();

  constructor(folder: string, options: Partial<DecisionLogOptions> & Pick<DecisionLogOptions, "report">) {
    this.#folder = folder;
    this.#options = { ...usual, ...options };
  }

  append(decision: NetworkDecision): void {
    if (this.#waiting.length >= maxWaiting) {
      this.#lost++;
      return;
    }
    this.#waiting.push(JSON.stringify(decision));
    this.#timer ??= setTimeout(() => void this.flush(), flushMs).unref();
  }

  /** Writes what waits. */
  flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#flushing = this.#flushing.then(() => this.#write()).catch((error: unknown) => this.#options.report(error));
    return this.#flushing;
  }

  /** The newest decisions on a sandbox, oldest first. */
  async read(sandbox: string, limit: number): Promise<NetworkDecision[]> {
    await this.flush();
    const found: NetworkDecision[] = [];
    for (const path of await this.#paths()) {
      for await (const line of linesBackwards(path)) {
        const decision = parse(line);
        if (decision?.sandbox === sandbox) found.push(decision);
        if (found.length >= limit) return found.toReversed();
      }
    }
    return found.toReversed();
  }

  async close(): Promise<void> {
    await this.flush();
    await this.#file?.close();
    this.#file = null;
  }

  async #write(): Promise<void> {
    const lines = this.#waiting;
    if (this.#lost > 0) lines.push(JSON.stringify({ time: new Date().toISOString(), lost: this.#lost }));
    if (lines.length === 0) return;
    this.#waiting = [];
    this.#lost = 0;
    const text = `${lines.join("\n")}\n`;
    const file = await this.#ready(Buffer.byteLength(text));
    await file.appendFile(text);
    this.#size += Buffer.byteLength(text);
  }

  /** The open file, another one where this one would grow too large. */
  async #ready(more: number): Promise<FileHandle> {
    if (this.#file !== null && this.#size + more <= this.#options.maxBytes) return this.#file;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    if (this.#file === null) {
      this.#size = await sizeOf(this.#path(0));
      if (this.#size + more <= this.#options.maxBytes) return (this.#file = await open(this.#path(0), "a", 0o600));
    }
    await this.#file?.close();
    this.#file = null;
    for (let at = this.#options.files - 2; at >= 0; at--) {
      await rename(this.#path(at), this.#path(at + 1)).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      });
    }
    await rm(this.#path(0), { force: true });
    this.#size = 0;
    return (this.#file = await open(this.#path(0), "a", 0o600));
  }

  #path(number: number): string {
    return join(this.#folder, number === 0 ? name : `${name}.${number}`);
  }

  /** Newest first. */
  async #paths(): Promise<string[]> {
    const there = new Set(
      await readdir(this.#folder).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        return [];
      }),
    );
    return Array.from({ length: this.#options.files }, (_, number) => this.#path(number)).filter((path) =>
      there.has(path.slice(this.#folder.length + 1)),
    );
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return 0;
  }
}

/** A line that a crash cut off is no decision. */
function parse(line: string): NetworkDecision | null {
  try {
    return JSON.parse(line) as NetworkDecision;
  } catch {
    return null; // nothing of it can be told
  }
}

/** The lines of a file from the last to the first, without reading more than is asked for. */
async function* linesBackwards(path: string): AsyncGenerator<string> {
  const file = await open(path, "r");
  try {
    let end = (await file.stat()).size;
    let rest = Buffer.alloc(0);
    while (end > 0) {
      const start = Math.max(0, end - readBytes);
      const { buffer, bytesRead } = await file.read(Buffer.alloc(end - start), 0, end - start, start);
      const lines = Buffer.concat([buffer.subarray(0, bytesRead), rest]);
      const first = start === 0 ? -1 : lines.indexOf(10);
      const whole = lines
        .subarray(first + 1)
        .toString("utf8")
        .split("\n")
        .toReversed();
      rest = first < 0 ? Buffer.alloc(0) : Buffer.from(lines.subarray(0, first + 1));
      for (const line of whole) if (line !== "") yield line;
      end = start;
    }
  } finally {
    await file.close();
  }
}
