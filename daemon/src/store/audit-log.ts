import { mkdir, open, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";

export interface AuditLogOptions {
  /** of the file that is written, such as `egress.jsonl` */
  readonly name: string;
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

/**
 * What is to be looked up later: one JSON object a line, only ever appended to, in a file and older ones beside it, as `egress.jsonl`,
 * `egress.jsonl.1` and so on. Writing waits for nobody; a disk that stands still costs lines, which are counted.
 */
export class AuditLog<Entry extends object> {
  readonly #folder: string;
  readonly #options: AuditLogOptions;
  #waiting: string[] = [];
  #lost = 0;
  #file: FileHandle | null = null;
  #size = 0;
  #timer: NodeJS.Timeout | null = null;
  #flushing: Promise<void> = Promise.resolve();

  constructor(folder: string, options: Partial<AuditLogOptions> & Pick<AuditLogOptions, "name" | "report">) {
    this.#folder = folder;
    this.#options = { ...usual, ...options };
  }

  append(entry: Entry): void {
    if (this.#waiting.length >= maxWaiting) {
      this.#lost++;
      return;
    }
    this.#waiting.push(JSON.stringify(entry));
    this.#timer ??= setTimeout(() => void this.flush(), flushMs).unref();
  }

  /** Writes what waits. */
  flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#flushing = this.#flushing.then(() => this.#write()).catch((error: unknown) => this.#options.report(error));
    return this.#flushing;
  }

  /** The newest entries that match, oldest first. */
  async read(matches: (entry: Entry) => boolean, limit: number): Promise<Entry[]> {
    const found: Entry[] = [];
    const files = await this.#openAll();
    try {
      for (const file of files) {
        for await (const line of linesBackwards(file)) {
          if (found.length >= limit) return found.toReversed();
          const entry = parse(line);
          // a count of lost lines is none
          if (entry !== null && !("lost" in entry) && matches(entry as Entry)) found.push(entry as Entry);
        }
      }
      return found.toReversed();
    } finally {
      for (const file of files) await file.close();
    }
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
    try {
      const file = await this.#ready(Buffer.byteLength(text));
      await file.appendFile(text);
      this.#size += Buffer.byteLength(text);
    } catch (error) {
      this.#lost += lines.length;
      // some of it may be there: whoever opens the file next sees where it ends
      await this.#file?.close().catch(() => undefined);
      this.#file = null;
      throw error;
    }
  }

  /** The open file, another one where this one would grow too large. */
  async #ready(more: number): Promise<FileHandle> {
    if (this.#file !== null && this.#size + more <= this.#options.maxBytes) return this.#file;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    if (this.#file === null) {
      this.#size = await sizeOf(this.#path(0));
      if (this.#size + more <= this.#options.maxBytes) return (this.#file = await openToAppend(this.#path(0)));
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
    const { name } = this.#options;
    return join(this.#folder, number === 0 ? name : `${name}.${number}`);
  }

  /** Newest first; at one time, as files get other names when one is full. */
  #openAll(): Promise<FileHandle[]> {
    const opened = this.flush().then(async () => {
      const files: FileHandle[] = [];
      for (let at = 0; at < this.#options.files; at++) {
        try {
          files.push(await open(this.#path(at), "r"));
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code === "ENOENT") continue;
          for (const file of files) await file.close();
          throw error;
        }
      }
      return files;
    });
    this.#flushing = opened.then(
      () => undefined,
      () => undefined, // the reader learns it
    );
    return opened;
  }
}

/** A line that a crash cut off must not take the next one with it. */
async function openToAppend(path: string): Promise<FileHandle> {
  const file = await open(path, "a+", 0o600);
  const { size } = await file.stat();
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, Math.max(0, size - 1));
  if (size > 0 && buffer[0] !== 10) await file.appendFile("\n");
  return file;
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return 0;
  }
}

/** A line that a crash cut off is no entry. */
function parse(line: string): object | null {
  try {
    const entry: unknown = JSON.parse(line);
    return typeof entry === "object" ? entry : null;
  } catch {
    return null; // nothing of it can be told
  }
}

/** The lines of a file from the last to the first, without reading more than is asked for. */
async function* linesBackwards(file: FileHandle): AsyncGenerator<string> {
  let end = (await file.stat()).size;
  let rest = Buffer.alloc(0);
  while (end > 0) {
    const start = Math.max(0, end - readBytes);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(end - start), 0, end - start, start);
    const bytes = Buffer.concat([buffer.subarray(0, bytesRead), rest]);
    end = start;
    // the first line may have begun in the block before; only the file's own first one has not
    const first = start === 0 ? 0 : bytes.indexOf(10) + 1;
    rest = start === 0 ? Buffer.alloc(0) : Buffer.from(first === 0 ? bytes : bytes.subarray(0, first));
    if (start > 0 && first === 0) continue;
    for (const line of bytes.subarray(first).toString("utf8").split("\n").toReversed()) if (line !== "") yield line;
  }
}
