import { SquashError } from "@squash/sdk/errors";
import type { DiffAnswer, DiffFileAnswer } from "@squash/sdk/protocol";
import { readRecords, type DiffRecord } from "../core/diff-records.js";
import type { Diffs, DiffRequest } from "../core/diffs.js";
import type { DiffFileQuery, DiffQuery, DiffService, DiffSides } from "../core/service.js";
import { entryOf, isText } from "./diff-entry.js";
import { checkTar, writeTar } from "./diff-tar.js";
import { unifiedDiff } from "./unified-diff.js";

/** of records, and of a tar file with its contents */
const outputLimit = { list: 1_073_741_824, tar: 8_589_934_592 };
/** of all paths in one answer */
const pathBytes = 16_777_216;
/** of one side of a unified diff */
const textBytes = 1_048_576;

/** Makes answers of comparisons. */
export class DiffAnswers implements DiffService {
  readonly #diffs: Pick<Diffs, "compare">;

  constructor(diffs: Pick<Diffs, "compare">) {
    this.#diffs = diffs;
  }

  async list(id: string, { limit, ...sides }: DiffQuery, signal: AbortSignal): Promise<DiffAnswer> {
    const { from, to, output } = await this.#diffs.compare(id, { ...everything, ...sides }, signal);
    const answer: DiffAnswer = {
      ok: true,
      from,
      to,
      added: [],
      modified: [],
      deleted: [],
      metadata: [],
      totals: { added: 0, modified: 0, deleted: 0, metadata: 0 },
      truncated: false,
    };
    let [count, bytes] = [0, 0];
    try {
      for await (const record of readRecords(output.chunks())) {
        signal.throwIfAborted();
        if (record.kind === "same") continue;
        answer.totals[record.kind]++;
        bytes += record.path.length;
        if (++count > limit || bytes > pathBytes) answer.truncated = true;
        else answer[record.kind].push(entryOf(record));
      }
      return answer;
    } finally {
      await output.close();
    }
  }

  async file(id: string, { path, ...sides }: DiffFileQuery, signal: AbortSignal): Promise<DiffFileAnswer> {
    const wish: DiffRequest = {
      ...sides,
      only: path,
      contents: "both",
      contentLimit: textBytes,
      outputLimit: outputLimit.list,
    };
    const { from, to, output } = await this.#diffs.compare(id, wish, signal);
    try {
      for await (const record of readRecords(output.chunks())) {
        const old = await collect(record.contents.before());
        const now = await collect(record.contents.after());
        return { ok: true, from, to, kind: record.kind, entry: entryOf(record), ...(await textOf(record, old, now)) };
      }
    } finally {
      await output.close();
    }
    const name = path.toString().slice(0, 200);
    throw new SquashError("path_not_found", `Cannot compare "/${name}": neither "${from}" nor "${to}" has it`);
  }

  async tar(id: string, sides: DiffSides, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const limit = outputLimit.tar;
    const wish: DiffRequest = { ...everything, ...sides, contents: "new", contentLimit: limit, outputLimit: limit };
    const { output } = await this.#diffs.compare(id, wish, signal);
    try {
      await checkTar(output.chunks());
      signal.throwIfAborted();
    } catch (error) {
      await output.close();
      throw error;
    }
    // a stream that nobody has begun to read ends without a word
    signal.addEventListener("abort", () => void output.close().catch(() => undefined), { once: true });
    return closing();

    async function* closing(): AsyncGenerator<Uint8Array> {
      try {
        yield* writeTar(output.chunks());
      } finally {
        await output.close();
      }
    }
  }
}

const everything = { only: Buffer.alloc(0), contents: "none", contentLimit: 0, outputLimit: outputLimit.list } as const;

async function textOf(
  record: DiffRecord,
  old: Buffer,
  now: Buffer,
): Promise<Pick<DiffFileAnswer, "binary" | "too_large" | "diff">> {
  const { oldType, newType, oldSize, newSize, oldContentSize, newContentSize } = record;
  const none = { binary: false, too_large: false, diff: null };
  const areFiles = (oldType ?? "file") === "file" && (newType ?? "file") === "file";
  if (!areFiles) return none;
  if (oldContentSize < oldSize || newContentSize < newSize) return { ...none, too_large: true };
  if ([old, now].some((content) => content.includes(0) || !isText(content))) return { ...none, binary: true };
  if (old.equals(now)) return { ...none, diff: "" };
  const name = quoted(record.path);
  const names = {
    oldName: oldType === null ? "/dev/null" : `a/${name}`,
    newName: newType === null ? "/dev/null" : `b/${name}`,
  };
  const diff = await unifiedDiff({ ...names, old: old.toString(), new: now.toString() });
  return { ...none, diff, too_large: diff === null };
}

/** A name that cannot begin another line of the diff. */
function quoted(path: Buffer): string {
  return path.toString().replaceAll(/[\u0000-\u001f\u007f\\]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

async function collect(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of chunks) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}
