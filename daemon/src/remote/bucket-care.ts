import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { JobContext } from "../core/jobs.js";
import { pause } from "../core/pause.js";
import { inParallel } from "../s3/pool.js";
import { Sweeps } from "../s3/sweep-state.js";
import type { StoredFile } from "../s3/stored-file.js";
import type { BucketParts } from "./bucket-parts.js";

const parallel = 8;
const removeAtOnce = 500;
const waitMs = 1_000;
/** as long as a sweep may be silent, and a little */
const waitAtMost = 11 * 60;
/** what was sent is made sure of so often, with a sweep in each of the times between */
const guardTries = 5;

interface Named {
  /** what names it, and what sends it anew from a machine that has it whole, for people */
  readonly by: string;
  readonly file: StoredFile;
}

/** What a sweep has found. */
export interface Swept {
  readonly objects: number;
  readonly bytes: number;
}

/** Checks what lies in the bucket, and removes what nothing names. */
export class BucketCare {
  readonly #bucket: BucketParts;
  readonly #sweeps: Sweeps;

  constructor(bucket: BucketParts) {
    this.#bucket = bucket;
    this.#sweeps = new Sweeps(bucket.json);
  }

  /**
   * Runs what sends things and then names them, so that they are there afterwards though somebody sweeps the bucket meanwhile: `send` is called
   * again, with `thorough` so that it takes nothing for granted, until no sweep has begun from before it to after it.
   */
  async guarded<T>(send: (thorough: boolean) => Promise<T>, signal: AbortSignal): Promise<T> {
    for (let tries = 1; ; tries++) {
      const before = await this.#quiet(signal);
      const result = await send(tries > 1);
      const after = await this.#sweeps.read(signal);
      if (before.epoch === after.epoch && after.untilMs === null) return result;
      if (tries === guardTries)
        throw new SquashError("s3_unreachable", "Cannot send to the bucket: it is swept all the time; try again later");
    }
  }

  /**
   * Removes blobs that nothing names and that have lain for `graceS`, and uploads in parts of that age. Nothing is removed where a manifest
   * cannot be read. Throws `s3_object_invalid`, `s3_failed` while another machine sweeps.
   */
  async collect(
    { graceS, dryRun }: { readonly graceS: number; readonly dryRun: boolean },
    { signal, progress }: JobContext,
  ): Promise<Swept> {
    const { bucket } = this.#bucket;
    const sweep = await this.#sweeps.begin(signal);
    try {
      const before = sweep.serverMs - graceS * 1_000;
      progress("listing the objects", 0);
      const old: { readonly key: string; readonly size: number }[] = [];
      for await (const { key, size, modifiedMs } of bucket.list("blobs/", signal)) {
        if (modifiedMs <= before) old.push({ key, size });
        await sweep.keep(signal);
      }
      progress("reading what names them", 0.3);
      const used = new Set<string>();
      for (const { file } of await this.#named(signal, { each: () => sweep.keep(signal) }))
        for (const { key } of this.#objectsOf(file)) used.add(key);
      const unused = old.filter(({ key }) => !used.has(key));
      const swept = { objects: unused.length, bytes: unused.reduce((sum, { size }) => sum + size, 0) };
      if (dryRun) return swept;
      for (let at = 0; at < unused.length; at += removeAtOnce) {
        await sweep.goOn(signal);
        progress("removing what nothing names", 0.5 + (0.5 * at) / unused.length);
        const some = unused.slice(at, at + removeAtOnce);
        await bucket.remove(
          some.map(({ key }) => key),
          signal,
        );
      }
      for await (const { key, upload, begunMs } of bucket.openUploads("blobs/", signal))
        if (begunMs <= before) await bucket.abandonUpload(key, upload, signal);
      return swept;
    } finally {
      // what cannot be said now ends by itself, later
      await sweep.end(AbortSignal.timeout(30_000)).catch(() => undefined);
    }
  }

  /** Looks whether all that is named is there, and, where that is asked for, every byte of it. Returns what is wrong. */
  async verify({ deep }: { readonly deep: boolean }, { signal, progress }: JobContext): Promise<string[]> {
    const problems: string[] = [];
    progress("reading what is named", 0);
    await this.#checkRest(problems, signal);
    const named = await this.#named(signal, { problems });
    const seen = new Set<string>();
    const objects = named.flatMap(({ by, file }) => this.#objectsOf(file).map((object) => ({ by, ...object })));
    const once = objects.filter(({ key }) => !seen.has(key) && seen.add(key).size > 0);
    let done = 0;
    await inParallel(once, deep ? parallel / 2 : parallel, async (object) => {
      const problem = await this.#problemOf(object, deep, signal);
      if (problem !== null) problems.push(`${object.by}: ${problem}`);
      progress("looking at the objects", ++done / once.length);
    });
    return problems;
  }

  async #problemOf(
    object: { readonly key: string; readonly size: number; readonly check: (signal: AbortSignal) => Promise<void> },
    deep: boolean,
    signal: AbortSignal,
  ): Promise<string | null> {
    try {
      const found = await this.#bucket.bucket.head(object.key, signal);
      if (found === null) return `"${object.key}" is not there`;
      if (found.size !== object.size) return `"${object.key}" has ${found.size} bytes, it had ${object.size}`;
      if (deep) await object.check(signal);
      return null;
    } catch (error) {
      if (!isSquashError(error) || !["s3_object_invalid", "s3_object_missing"].includes(error.code)) throw error;
      return error.message;
    }
  }

  /** All files that manifests name. Throws where one cannot be read, unless there is a list to write that to. */
  async #named(
    signal: AbortSignal,
    { problems, each }: { readonly problems?: string[]; readonly each?: () => Promise<void> },
  ): Promise<Named[]> {
    const { modules, snapshots } = this.#bucket;
    const named: Named[] = [];
    const look = async (by: string, work: () => Promise<void>): Promise<void> => {
      await each?.();
      await (problems === undefined ? work() : noting(problems, work, by));
    };
    await inParallel(modules.names(signal), parallel, (name) => {
      const by = `module ${name} (to mend it: sq push module ${name} --replace)`;
      return look(by, async () => {
        const module = await modules.read(name, signal);
        if (module !== null) named.push({ by, file: module.file });
      });
    });
    await inParallel(snapshots.all(signal), parallel, ({ id, label }) => {
      const by = `snapshot ${id}@${label} (to mend it: sq push snapshots ${id} ${label} --replace)`;
      return look(by, async () => {
        const snapshot = await snapshots.read(id, label, signal);
        for (const { file } of snapshot?.images ?? []) named.push({ by, file });
      });
    });
    return named;
  }

  /** What names no files: sandboxes that are kept there, and who sweeps. */
  async #checkRest(problems: string[], signal: AbortSignal): Promise<void> {
    const { sandboxes, snapshots, older } = this.#bucket;
    await noting(problems, async () => {
      await this.#sweeps.read(signal);
    });
    await inParallel(sandboxes.ids(signal), parallel, (id) =>
      noting(problems, async () => {
        const label = (await sandboxes.read(id, signal))?.sandbox?.latestSnapshot ?? null;
        if (label === null || (await snapshots.etag(id, label, signal)) !== null) return;
        if ((await older.snapshot(id, label, signal)) !== null) return;
        problems.push(`sandbox ${id}: its snapshot "${label}" is not there`);
      }),
    );
  }

  #objectsOf(file: StoredFile): { key: string; size: number; check: (signal: AbortSignal) => Promise<void> }[] {
    const { blobs, files } = this.#bucket;
    const whole = files.wholeKey(file);
    if (whole === null)
      return file.pieces.map((piece) => ({
        key: blobs.keyOf(piece.sha256),
        size: blobs.sizeOf(piece.size),
        check: (signal: AbortSignal) => blobs.fetch(piece, { file: null, position: 0 }, signal),
      }));
    const check = async (signal: AbortSignal): Promise<void> => {
      let position = 0;
      for (const piece of file.pieces) {
        await blobs.fetch(piece, { file: null, position, within: { key: whole } }, signal);
        position += piece.size;
      }
    };
    return [{ key: whole, size: file.size, check }];
  }

  /** Waits until nobody sweeps. */
  async #quiet(signal: AbortSignal): Promise<{ readonly epoch: number }> {
    for (let waited = 0; ; waited++) {
      const state = await this.#sweeps.read(signal);
      if (state.untilMs === null) return state;
      if (waited === waitAtMost)
        throw new SquashError("s3_unreachable", "Cannot send to the bucket: somebody sweeps it, and does not end");
      await pause(waitMs, signal);
    }
  }
}

/** Does what may find an object that cannot be used, which is written down then. */
async function noting(problems: string[], work: () => Promise<void>, of?: string): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!isSquashError(error) || error.code !== "s3_object_invalid") throw error;
    problems.push(of === undefined ? error.message : `${of}: ${error.message}`);
  }
}
