import { watch, type FSWatcher } from "node:fs";
import { basename, dirname } from "node:path";

const settleMs = 100;

/**
 * Calls `look` a moment after something happened to a file's name in its directory, and every `pollMs` besides, as not each file system tells
 * of everything. Returns what ends it.
 */
export function watchFile(
  path: string,
  look: () => void,
  options: { readonly pollMs: number; readonly report: (error: unknown) => void },
): () => void {
  let settling: NodeJS.Timeout | null = null;
  let watcher: FSWatcher | null = null;
  try {
    // the directory: the file itself is another one after each renaming
    watcher = watch(dirname(path), { persistent: false }, (_, name) => {
      if (name !== null && name !== basename(path)) return;
      settling ??= setTimeout(() => {
        settling = null;
        look();
      }, settleMs).unref();
    });
    watcher.on("error", options.report);
  } catch (error) {
    options.report(error);
  }
  const timer = setInterval(look, options.pollMs).unref();
  return () => {
    watcher?.close();
    clearInterval(timer);
    if (settling !== null) clearTimeout(settling);
  };
}
