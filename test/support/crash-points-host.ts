import { AsyncLocalStorage } from "node:async_hooks";
import childProcess from "node:child_process";
import fs from "node:fs";
import fsPromises from "node:fs/promises";
import { register, syncBuiltinESMExports } from "node:module";
import { basename, dirname, join } from "node:path";
import { isMainThread } from "node:worker_threads";
import { crashFolder, workFile, type Orders, type Step } from "./crash-orders.js";
import { WorkCount } from "./crash-work.js";
import { load, methodsOf, wrap, type Methods } from "./crash-wrap.js";

/*
 * Loaded into a squashd under test before anything else. It follows every operation through its stages, its requests to sq-host, its changes of
 * files and the tools that it starts; writes down which there are, or has an operation stop at one of them for good, so that squashd can be
 * killed there. Nothing in squashd knows of it.
 */

interface Run {
  readonly operation: string;
  readonly orders: Orders;
  readonly counts: Map<string, number>;
  isOver: boolean;
}

const folder = join(dirname(process.env["SQUASH_RUN_DIR"] ?? ""), crashFolder);
const { appendFileSync, readFileSync } = fs;
const runs = new AsyncLocalStorage<{ readonly run: Run; readonly stage: string }>();
const stopped = new Error("stopped here");
const work = new WorkCount(join(folder, workFile));
/** the job of the disk that is being done */
let diskJob: { isStopped: boolean } | null = null;

/** What is done for a request or in the background; the first argument, or a part of it, tells several of a kind apart. */
const operations: readonly (readonly [file: string, type: string, ...methods: string[]])[] = [
  ["core/sandboxes.js", "Sandboxes", "create", "destroy", "setNetwork"],
  ["core/snapshots.js", "Snapshots", "take", "remove", "pin", "collect"],
  ["core/stacks.js", "Stacks", "restore", "activate", "deactivate"],
  ["core/forks.js", "Forks", "fork"],
  ["module-house.js", "ModuleHouse", "put", "remove", "trust"],
];
const changes = ["mkdir", "rename", "rm", "rmdir", "unlink", "chmod", "writeFile", "truncate", "copyFile", "link"];
const handleChanges = ["write", "writeFile", "truncate", "chmod"];
const syncChanges = ["mkdirSync", "renameSync", "rmSync", "rmdirSync", "unlinkSync", "writeSync", "openSync"];

function never(): Promise<never> {
  return new Promise(() => undefined);
}

/** Says that an operation has come to a place; returns whether it is to stop there. */
function isHere(what: string, isChange: boolean): boolean {
  const store = runs.getStore();
  if (store === undefined || store.run.isOver) return false;
  const { run, stage } = store;
  const name = `${stage}${what}`;
  const count = run.counts.get(name) ?? 0;
  run.counts.set(name, count + 1);
  const place = `${name} #${count}`;
  if (run.orders.record === true) {
    const step: Step = { operation: run.operation, place, isChange };
    tell("steps.jsonl", JSON.stringify(step));
  }
  if (run.orders.stop?.[run.operation] !== place) return false;
  tell("stopped", run.operation);
  return true;
}

function tell(file: string, line: string): void {
  const job = diskJob;
  diskJob = null;
  appendFileSync(join(folder, file), `${line}\n`);
  diskJob = job;
}

function begin<T>(operation: string, does: () => T): T {
  const result = beginNow(operation, does);
  if (result instanceof Promise) work.follow(result);
  return result;
}

function beginNow<T>(operation: string, does: () => T): T {
  let orders: Orders = {};
  try {
    orders = JSON.parse(readFileSync(join(folder, "orders.json"), "utf8")) as Orders;
  } catch {
    return does();
  }
  const run: Run = { operation, orders, counts: new Map(), isOver: false };
  return runs.run({ run, stage: "" }, () => {
    if (isHere("begun", false)) return never() as T;
    const result = does();
    if (result instanceof Promise) {
      const over = (): void => void (run.isOver = true);
      result.then(over, over);
    }
    return result;
  });
}

/** Short and the same in every run: no directories, and no names that are made up. */
function nameOf(path: unknown): string {
  const text = typeof path === "string" ? basename(path) : "";
  return text
    .replaceAll(/(?:\d+-)?[0-9a-f]{12,}/g, "*")
    .replace(/^(job|mkbase)-.*$/, "$1-*")
    .replace(/^upper\.\d+/, "upper");
}

type Plan = Record<"kind" | "module", string> & { readonly run: (context: unknown) => Promise<void> };

async function watchOperations(): Promise<void> {
  for (const [file, type, ...names] of operations) {
    const methods = await methodsOf(file, type);
    for (const name of names)
      wrap(
        methods,
        name,
        (original) =>
          function (this: unknown, ...args) {
            if (runs.getStore() !== undefined) return original.apply(this, args); // a part of another one
            const [first] = args as [string | { readonly id?: string } | undefined];
            const subject = typeof first === "string" ? first : (first?.id ?? "");
            return begin(`${type}.${name} ${subject}`.trim(), () => original.apply(this, args));
          },
      );
  }
  wrap(
    await methodsOf("core/jobs.js", "Jobs"),
    "start",
    (original) =>
      function (this: unknown, plan) {
        const { kind, module, run } = plan as Plan;
        const watched = (context: unknown): Promise<void> =>
          runs.exit(() => begin(`job ${kind} ${module}`, () => run(context)));
        return original.call(this, { ...(plan as object), run: watched });
      },
  );
  wrap(
    await methodsOf("core/snapshot-upkeep.js", "SnapshotUpkeep"),
    "poke",
    (original) =>
      function (this: unknown) {
        const result = runs.exit(() => begin("upkeep", () => original.call(this)));
        work.follow((this as { settled: () => Promise<void> }).settled());
        return result;
      },
  );
  wrap(
    await methodsOf("modules/catalog.js", "DirectoryCatalog"),
    "verify",
    (original) =>
      function (this: unknown, ...args) {
        const result = original.apply(this, args) as Promise<unknown>;
        work.endStart(result);
        return result;
      },
  );
}

interface Stage {
  readonly name: string;
  up(draft: unknown): Promise<void>;
  down(draft: unknown): Promise<void>;
}

function watchStages(): void {
  const watch =
    (stage: Stage, way: "up" | "down"): ((draft: unknown) => Promise<void>) =>
    async (draft) => {
      const store = runs.getStore();
      if (store === undefined) return stage[way](draft);
      await runs.run({ run: store.run, stage: `${way} ${stage.name}: ` }, async () => {
        if (isHere("begins", false)) await never();
        await stage[way](draft);
        if (isHere("ended", false)) await never();
      });
    };
  const seen = new WeakSet<Stage>();
  const watched = (stages: readonly Stage[]): Stage[] =>
    stages.map((stage) => {
      if (seen.has(stage)) return stage;
      const one: Stage = { name: stage.name, up: watch(stage, "up"), down: watch(stage, "down") };
      seen.add(one);
      return one;
    });
  Object.assign(globalThis, { [Symbol.for("squash.watch-stages")]: watched });
}

function watchAsync(methods: Methods, name: string, label: (self: unknown, args: readonly unknown[]) => string): void {
  wrap(
    methods,
    name,
    (original) =>
      async function (this: unknown, ...args) {
        const what = label(this, args);
        if (isHere(`${what} next`, false)) return never();
        const result = await original.apply(this, args);
        return isHere(`${what} done`, true) ? never() : result;
      },
  );
}

async function watchFiles(): Promise<void> {
  const paths = new WeakMap<object, string>();
  const probe = await fsPromises.open("/dev/null");
  const handle = Object.getPrototypeOf(probe) as Methods;
  await probe.close();
  for (const name of handleChanges) watchAsync(handle, name, (self) => `${name} to ${paths.get(self as object) ?? ""}`);
  const methods = fsPromises as unknown as Methods;
  for (const name of changes)
    watchAsync(
      methods,
      name,
      (_, args) =>
        `${name} ${args
          .slice(0, name === "rename" ? 2 : 1)
          .map(nameOf)
          .join(" ")}`,
    );
  wrap(
    methods,
    "open",
    (original) =>
      async function (this: unknown, ...args) {
        const [path, flags = "r"] = args;
        const makes = typeof flags === "string" && /[wax]/.test(flags);
        if (makes && isHere(`open ${nameOf(path)} next`, false)) return never();
        const opened = (await original.apply(this, args)) as object;
        paths.set(opened, nameOf(path));
        return makes && isHere(`open ${nameOf(path)} done`, true) ? never() : opened;
      },
  );
  const sync = fs as unknown as Methods;
  for (const name of syncChanges)
    wrap(
      sync,
      name,
      (original) =>
        function (this: unknown, ...args) {
          const job = diskJob;
          if (job === null) return original.apply(this, args);
          if (job.isStopped) throw stopped;
          const what =
            name === "writeSync"
              ? name
              : `${name} ${args
                  .slice(0, name === "renameSync" ? 2 : 1)
                  .map(nameOf)
                  .join(" ")}`;
          job.isStopped = isHere(`${what} next`, false);
          if (job.isStopped) throw stopped;
          const result = original.apply(this, args);
          job.isStopped = isHere(`${what} done`, true);
          if (job.isStopped) throw stopped;
          return result;
        },
    );
}

/** Jobs of the disk thread are done in this one, where it can be told whose they are. */
async function watchDisk(): Promise<void> {
  const { doDiskJob } = (await load("store/disk-job.js")) as unknown as { doDiskJob: (job: unknown) => void };
  wrap(await methodsOf("store/disk.js", "Disk"), "run", () => async (job) => {
    const state = { isStopped: false };
    diskJob = state;
    try {
      doDiskJob(job);
    } catch (error) {
      if (!state.isStopped) throw error;
    } finally {
      diskJob = null;
    }
    if (state.isStopped) await never();
  });
}

function watchTools(): void {
  wrap(
    childProcess as unknown as Methods,
    "spawn",
    (original) =>
      function (this: unknown, ...args) {
        const child = original.apply(this, args) as childProcess.ChildProcess;
        const store = runs.getStore();
        if (store === undefined) return child;
        const emit = child.emit.bind(child) as (event: string | symbol, ...rest: unknown[]) => boolean;
        const what = `${nameOf(args[0])} done`;
        child.emit = (event: string | symbol, ...rest: unknown[]) =>
          event === "close" && runs.run(store, () => isHere(what, true)) ? true : emit(event, ...rest);
        return child;
      },
  );
}

interface Frame {
  readonly id: number;
}

/** Requests whose answers are to be lost, and how many were. */
const lost = { ids: new Set<number>(), count: 0, sqHost: 0, wanted: 0 };
const waiting: (() => void)[] = [];

/** Waits until all operations are there on whose requests sq-host is to die; the last one sees to that. */
async function meet(sqHost: number, { fate, at }: NonNullable<Orders["host"]>): Promise<void> {
  const wanted = Object.keys(at).length;
  const all = new Promise<void>((release) => waiting.push(release));
  if (waiting.length === wanted) {
    if (fate === "unread") {
      process.kill(sqHost, "SIGSTOP");
      while (!/\) [tT] /.test(readFileSync(`/proc/${sqHost}/stat`, "utf8")));
      setImmediate(() => process.kill(sqHost, "SIGKILL"));
    } else Object.assign(lost, { ids: new Set(), count: 0, sqHost, wanted });
    for (const release of waiting.splice(0)) release();
  }
  await all;
}

async function watchSqHost(): Promise<void> {
  const link = await methodsOf("kernel/host-link.js", "HostLink");
  wrap(
    link,
    "request",
    (original) =>
      async function (this: unknown, ...args) {
        const what = `sq-host ${String(args[0])}`;
        const store = runs.getStore();
        const next = `${store?.stage ?? ""}${what} next`;
        const host = store?.run.isOver === false ? store.run.orders.host : undefined;
        const place = `${next} #${store?.run.counts.get(next) ?? 0}`;
        if (isHere(`${what} next`, false)) return never();
        if (store !== undefined && host?.at[store.run.operation] === place) {
          tell("stopped", store.run.operation);
          await meet((this as { readonly pid: number }).pid, host);
          const fields = args[1] as { frame: (type: number, id: number) => Buffer };
          const frame = fields.frame.bind(fields);
          if (host.fate === "unanswered")
            fields.frame = (type, id) => {
              lost.ids.add(id);
              fields.frame = frame; // whoever asks again gets an answer
              return frame(type, id);
            };
        }
        const answer = await original.apply(this, args);
        return isHere(`${what} done`, true) ? never() : answer;
      },
  );
  wrap(
    await methodsOf("kernel/frame.js", "FrameDecoder"),
    "push",
    (original) =>
      function* (this: unknown, ...args) {
        for (const frame of original.apply(this, args) as Iterable<Frame>) {
          if (!lost.ids.delete(frame.id)) yield frame;
          else if (++lost.count === lost.wanted) process.kill(lost.sqHost, "SIGKILL");
        }
      },
  );
}

if (isMainThread) {
  work.beginStart();
  register(new URL("stage-loader.js", import.meta.url));
  watchStages();
  await watchFiles();
  watchTools();
  syncBuiltinESMExports();
  await watchDisk();
  await watchSqHost();
  await watchOperations();
}
