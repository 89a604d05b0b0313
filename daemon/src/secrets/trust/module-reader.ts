import { createReadStream } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import { readRecords, type DiffRecord } from "../../core/diff-records.js";
import { endedByRemoval } from "../../core/ended-by-removal.js";
import type { Kernel } from "../../core/ports.js";
import { randomHex } from "../../core/random.js";
import { maxBundleBytes } from "./certificates.js";
import type { ViewEntry } from "./module-view.js";

/** of one entry: its content, and attributes as many as a comparison tells */
const maxOutputBytes = maxBundleBytes + 2 * 1_048_576;
/** until another comparison ends */
const busyMs = 50;

export interface ReaderParts {
  readonly kernel: Pick<Kernel, "compare">;
  readonly dataDir: string;
  /** for outputs, relative to `dataDir` */
  readonly folder: string;
}

/**
 * Looks at one path of mounted modules, by a process of sq-host's that sees nothing else and follows no link. `modules` are keys, topmost first.
 * Throws `kernel` where that does not come to its end before `signal` aborts.
 */
export async function lookAtModules(
  { kernel, dataDir, folder }: ReaderParts,
  modules: readonly string[],
  wish: { readonly path: string; readonly withContent: boolean },
  signal: AbortSignal,
): Promise<ViewEntry | null> {
  const output = `${folder}/.look-${randomHex(8)}`;
  const remove = (): Promise<void> => rm(join(dataDir, output), { force: true });
  const comparison = {
    from: [],
    to: modules.map((key) => ({ kind: "layer", key }) as const),
    only: Buffer.from(wish.path === "" ? "." : wish.path, "latin1"),
    contents: wish.withContent ? "new" : "none",
    contentLimit: maxBundleBytes,
    outputLimit: maxOutputBytes,
  } as const;
  const refuseLate = (): void => {
    if (signal.aborted) throw new SquashError("kernel", "Cannot read the modules in time; try again");
  };
  try {
    for (;;) {
      refuseLate();
      try {
        await endedByRemoval(() => kernel.compare(output, comparison), remove, signal);
        break;
      } catch (error) {
        refuseLate();
        // as many run as may at a time, and it has made nothing
        if (!isSquashError(error) || error.details["errno"] !== "EAGAIN") throw error;
        await wait(busyMs);
      }
    }
    for await (const record of readRecords(createReadStream(join(dataDir, output))))
      return { ...entryOf(record), content: wish.withContent ? await contentOf(record) : null };
    return null;
  } catch (error) {
    refuseLate(); // the end of its time removes what it reads
    throw error;
  } finally {
    await remove();
  }
}

function entryOf({ newType, mode, uid, gid, mtimeS, xattrs, target, newSize }: DiffRecord): Omit<ViewEntry, "content"> {
  if (newType === null) throw new RangeError("a record of modules is of a file that is gone");
  return {
    type: newType,
    attributes: { mode, uid, gid, mtimeS, xattrs },
    target: target.toString("latin1"),
    size: newSize,
  };
}

async function contentOf(
  record: DiffRecord & { readonly contents: { after(): AsyncIterable<Buffer> } },
): Promise<Buffer | null> {
  const pieces: Buffer[] = [];
  for await (const piece of record.contents.after()) pieces.push(piece);
  const content = Buffer.concat(pieces);
  return content.length === record.newSize ? content : null;
}
