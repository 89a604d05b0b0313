import { closeSync, mkdirSync, openSync, renameSync, rmSync, rmdirSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";

/** Work on small files. Each is a handful of system calls, done one after another by the disk thread. */
export type DiskJob =
  /** makes the directory `path`, which must not exist, and then those named in it */
  | { readonly kind: "makeTree"; readonly path: string; readonly mode: number; readonly folders: readonly Folder[] }
  /** removes the empty directories named in it first, which keeps what is mounted on one from being emptied, then all of `path` */
  | { readonly kind: "removeTree"; readonly path: string; readonly emptyFirst: readonly string[] }
  /** replaces a file in one step */
  | { readonly kind: "replace"; readonly path: string; readonly content: string; readonly mode: number }
  /** writes a file, and removes another one that need not exist */
  | {
      readonly kind: "write";
      readonly path: string;
      readonly content: string;
      readonly mode: number;
      readonly unlink?: string;
    }
  /** removes a file that need not exist */
  | { readonly kind: "unlink"; readonly path: string };

interface Folder {
  readonly name: string;
  readonly mode: number;
}

/** Does a job; throws what the system call threw. */
export function doDiskJob(job: DiskJob): void {
  switch (job.kind) {
    case "makeTree":
      mkdirSync(job.path, { mode: job.mode });
      for (const { name, mode } of job.folders) mkdirSync(join(job.path, name), { mode });
      return;
    case "removeTree":
      for (const name of job.emptyFirst) ignoreMissing(() => rmdirSync(join(job.path, name)));
      rmSync(job.path, { recursive: true, force: true });
      return;
    case "replace": {
      const draft = `${job.path}.tmp`;
      try {
        writeNew(draft, job.content, job.mode, "w");
        renameSync(draft, job.path);
      } catch (error) {
        rmSync(draft, { force: true });
        throw error;
      }
      return;
    }
    case "write":
      try {
        writeNew(job.path, job.content, job.mode, "w");
      } catch (error) {
        rmSync(job.path, { force: true }); // rather none than a part of it
        throw error;
      }
      if (job.unlink !== undefined) remove(job.unlink);
      return;
    case "unlink":
      remove(job.path);
  }
}

function remove(path: string): void {
  ignoreMissing(() => unlinkSync(path));
}

function writeNew(path: string, content: string, mode: number, flags: string): void {
  const file = openSync(path, flags, mode);
  try {
    const bytes = Buffer.from(content);
    for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
  } finally {
    closeSync(file);
  }
}

function ignoreMissing(action: () => void): void {
  try {
    action();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
