import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { JobContext } from "../core/jobs.js";
import { FakeObjectStore } from "../core/testing/fake-object-store.js";
import { Blobs } from "../s3/blobs.js";
import type { Bucket } from "../s3/bucket.js";
import { BucketFiles } from "../s3/files.js";
import { ModuleObjects } from "../s3/module-objects.js";
import { OlderObjects } from "../s3/older-objects.js";
import { SandboxObjects } from "../s3/sandbox-objects.js";
import { SealedJson } from "../s3/sealed-json.js";
import { SealedStore } from "../s3/sealed-store.js";
import { SnapshotObjects } from "../s3/snapshot-objects.js";
import { BucketCare } from "./bucket-care.js";
import type { BucketParts } from "./bucket-parts.js";

const { signal } = new AbortController();
const context: JobContext = { signal, progress: () => undefined };
const collectAll = { graceS: 0, dryRun: false };

let folder: string;
let store: FakeObjectStore;
let parts: BucketParts;
let care: BucketCare;
/** how far the store's clock is ahead, in ms */
let late: number;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "care-"));
  late = 0;
  store = new FakeObjectStore({
    serverMs: () => Date.now() + late,
    sleep: (ms) => (ms === 0 ? Promise.resolve() : sleep(ms)),
  });
  const uploads = { openUploads: async function* () {}, abandonUpload: () => Promise.resolve() };
  const bucket = Object.assign(store, uploads) as unknown as Bucket;
  const sealed = new SealedStore(store, null);
  const json = new SealedJson(sealed);
  const blobs = new Blobs(bucket, null);
  parts = {
    bucket,
    sealed,
    blobs,
    json,
    files: new BucketFiles(bucket, blobs, { folder, canKeepWhole: true }),
    modules: new ModuleObjects(store, json, join(folder, "modules.json")),
    snapshots: new SnapshotObjects(store, json),
    older: new OlderObjects(store, { isOn: true }),
    sandboxes: new SandboxObjects(store, sealed),
    folder,
  };
  care = new BucketCare(parts);
});
afterEach(() => rmSync(folder, { recursive: true }));

const content = Buffer.from("the content of a module");
const sha256 = createHash("sha256").update(content).digest("hex");
const blob = `blobs/sha256/${sha256.slice(0, 2)}/${sha256}`;
const piece = { sha256, size: content.length };

/** Sends the blob where it is not there, as whoever sends a file does, and then what names it. */
async function sendModule(between: () => Promise<unknown> = () => Promise.resolve()): Promise<void> {
  await parts.blobs.keep(piece, () => Promise.resolve(content), { signal });
  await between();
  const file = { size: content.length, sha256, stored: "whole", pieces: [piece] } as const;
  const module = { name: "a", format: "erofs", file, manifest: {} } as const;
  await parts.modules.write(module, { etag: null, signal });
}

function spoil(key: string): void {
  const there = store.objects.get(key);
  if (there === undefined) throw new Error(`there is no "${key}"`);
  const body = Buffer.from(there.body);
  body[5] = (body[5] ?? 0) ^ 1;
  store.objects.set(key, { ...there, body });
}

describe("a bucket that is swept while somebody sends to it", () => {
  it("loses what was sent and is not named yet, unless that is guarded", async () => {
    await sendModule(() => care.collect(collectAll, context));
    expect(store.objects.has(blob)).toBe(false);
    expect(await care.verify({ deep: false }, context)).toEqual([
      `module a (to mend it: sq push module a --replace): "${blob}" is not there`,
    ]);
  });

  it("has all that was sent, where that is guarded", async () => {
    const thorough: boolean[] = [];
    await care.guarded(async (again) => {
      thorough.push(again);
      await sendModule(() => (again ? Promise.resolve() : care.collect(collectAll, context)));
    }, signal);
    expect(thorough).toEqual([false, true]);
    expect(await care.verify({ deep: true }, context)).toEqual([]);
  });

  it("is not sent to while a sweep is under way", async () => {
    let isSwept = false;
    store.fate = (operation, key) => {
      if (operation === "remove" && key.startsWith("blobs/")) isSwept = true;
      return operation === "list" && key === "modules/" ? { there: 50 } : {};
    };
    await parts.blobs.keep(piece, () => Promise.resolve(content), { signal });
    const sweep = care.collect(collectAll, context);
    await sleep(10);
    await care.guarded(async () => {
      expect(isSwept).toBe(true);
      await sendModule();
    }, signal);
    await sweep;
    expect(await care.verify({ deep: true }, context)).toEqual([]);
  });

  it("is given up where it is swept each time", async () => {
    let tries = 0;
    const sending = care.guarded(async () => {
      tries++;
      await care.collect(collectAll, context);
    }, signal);
    await expect(sending).rejects.toMatchObject({ code: "s3_unreachable", message: /swept all the time/ });
    expect(tries).toBe(5);
  });
});

describe("a sweep", () => {
  it("removes what nothing names, keeps what is named or young, and only counts where it is told so", async () => {
    await sendModule();
    const other = Buffer.from("unnamed");
    const unnamed = { sha256: createHash("sha256").update(other).digest("hex"), size: other.length };
    await parts.blobs.keep(unnamed, () => Promise.resolve(other), { signal });
    const found = { objects: 1, bytes: other.length };
    expect(await care.collect({ graceS: 3_600, dryRun: false }, context)).toEqual({ objects: 0, bytes: 0 });
    expect(await care.collect({ graceS: 0, dryRun: true }, context)).toEqual(found);
    expect(await care.collect(collectAll, context)).toEqual(found);
    expect([...store.objects.keys()].filter((key) => key.startsWith("blobs/"))).toEqual([blob]);
    expect(await care.collect(collectAll, context)).toEqual({ objects: 0, bytes: 0 });
  });

  it.each(["modules/a.manifest.json", "gc/state.json"])("removes nothing where %s cannot be read", async (key) => {
    await sendModule();
    await parts.modules.list(signal); // what is remembered of it does not hide that
    await care.collect(collectAll, context);
    await parts.blobs.keep({ sha256: "0".repeat(64), size: 3 }, () => Promise.resolve(Buffer.from("abc")), { signal });
    spoil(key);
    const before = [...store.objects.keys()];
    await expect(care.collect(collectAll, context)).rejects.toMatchObject({
      code: "s3_object_invalid",
      message: expect.stringContaining(key) as unknown,
    });
    expect([...store.objects.keys()]).toEqual(before);
    expect((await care.verify({ deep: false }, context))[0]).toContain(key);
  });

  it("removes nothing once it took so long that others have taken it for ended", async () => {
    await parts.blobs.keep(piece, () => Promise.resolve(content), { signal });
    store.fate = (operation, key) => {
      if (operation === "list" && key === "sandboxes/") late = 11 * 60_000;
      return {};
    };
    await expect(care.collect(collectAll, context)).rejects.toThrow("it took too long");
    expect(store.objects.has(blob)).toBe(true);
  });
});
