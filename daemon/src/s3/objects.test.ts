import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeObjectStore } from "../core/testing/fake-object-store.js";
import { Blobs } from "./blobs.js";
import type { Bucket } from "./bucket.js";
import { Cipher } from "./cipher.js";
import { ModuleObjects } from "./module-objects.js";
import { SealedJson } from "./sealed-json.js";
import { SnapshotObjects, type SnapshotObject } from "./snapshot-objects.js";

const { signal } = new AbortController();
const digest = "ab".repeat(32);
const file = { size: 5, sha256: digest, stored: "whole", pieces: [{ sha256: digest, size: 5 }] } as const;
/** all that the catalog takes */
const names = ["_first", "000-base", "A.b-c_9", "x".repeat(128)];

let folder: string;
let store: FakeObjectStore;
let json: SealedJson;
let modules: ModuleObjects;
let snapshots: SnapshotObjects;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "objects-"));
  store = new FakeObjectStore();
  json = new SealedJson(store);
  modules = new ModuleObjects(store, json, join(folder, "modules.json"));
  snapshots = new SnapshotObjects(store, json);
});
afterEach(() => rmSync(folder, { recursive: true }));

function snapshotUpon(layers: readonly string[]): SnapshotObject {
  const created = "2026-01-02T03:04:05.678Z";
  const of = { id: "box", label: "clean", parent: null, by: null, machine: "here", size: 5 };
  return { ...of, created, sandboxCreated: created, layers, images: [{ name: "0".repeat(32), file }] };
}

describe("modules in the bucket", () => {
  it.each(names)("are listed and read whatever the catalog lets them be called: %s", async (name) => {
    await modules.write({ name, format: "erofs", file, manifest: {} }, { etag: null, signal });
    expect((await modules.list(signal)).modules.map((module) => module.name)).toEqual([name]);
    expect(await modules.read(name, signal)).toMatchObject({ name });
  });

  it("are read once by each machine, those that it has sent itself never, also by its next squashd", async () => {
    const reading = vi.spyOn(store, "read");
    const reads = async (of: ModuleObjects): Promise<number> => {
      reading.mockClear();
      const listed = await of.list(signal);
      expect(listed.modules.map(({ name }) => name).toSorted()).toEqual(
        [...store.objects.keys()].map(nameIn).toSorted(),
      );
      return reading.mock.calls.length;
    };
    const nameIn = (key: string): string => key.slice("modules/".length, -".manifest.json".length);
    const next = (cache: string): ModuleObjects => new ModuleObjects(store, json, join(folder, cache));
    for (let index = 0; index < 40; index++)
      await modules.write({ name: `own-${index}`, format: "erofs", file, manifest: {} }, { etag: null, signal });
    expect(await reads(modules)).toBe(0);
    expect(await reads(next("modules.json"))).toBe(0);
    const other = next("other.json");
    expect(await reads(other)).toBe(40);
    expect(await reads(other)).toBe(0);
    const { etag = null } = (await other.read("own-3", signal)) ?? {};
    await other.write({ name: "own-3", format: "squashfs", file, manifest: {} }, { etag, signal });
    expect(await reads(modules)).toBe(1);
    expect((await modules.list(signal)).modules.find(({ name }) => name === "own-3")?.format).toBe("squashfs");
  });
});

describe("snapshots in the bucket", () => {
  it("are read as they were written, upon modules of any name that there can be", async () => {
    const snapshot = snapshotUpon(names);
    await snapshots.write(snapshot, { etag: null, signal });
    expect(await snapshots.read("box", "clean", signal)).toMatchObject(snapshot);
  });

  it.each<[string, (fields: Record<string, unknown>) => void, RegExp]>([
    ["a module that leads elsewhere", (fields) => void (fields["layers"] = ["../etc"]), /layers/],
    ["a module twice", (fields) => void (fields["layers"] = ["a", "a"]), /layers that has one twice/],
    ["a time that is none", (fields) => void (fields["created"] = "yesterday"), /created/],
    ["a time in other words", (fields) => void (fields["sandboxCreated"] = "2026-01-02"), /sandboxCreated/],
    ["a size below none", (fields) => void (fields["size"] = -1), /size/],
    ["no images", (fields) => void (fields["images"] = []), /images/],
    [
      "an image that leads elsewhere",
      (fields) => void (fields["images"] = [{ name: "../x", file }]),
      /images\[0\]\.name/,
    ],
    ["an image of no file", (fields) => void (fields["images"] = [{ name: "0".repeat(32) }]), /images\[0\]\.file/],
    ["a parent that is none", (fields) => void (fields["parent"] = ".."), /parent/],
    ["a machine that is none", (fields) => void (fields["machine"] = 5), /machine/],
    ["nobody who took it", (fields) => Reflect.deleteProperty(fields, "by"), /by/],
    ["the label of another", (fields) => void (fields["label"] = "other"), /not that snapshot's/],
  ])("are refused with %s, and it is said which object that is", async (_name, change, why) => {
    const fields: Record<string, unknown> = { schema: 1, ...snapshotUpon(["000-base"]) };
    change(fields);
    const key = "sandboxes/box/snapshots/clean.json";
    await json.write(key, fields, { signal });
    await expect(snapshots.read("box", "clean", signal)).rejects.toMatchObject({
      code: "s3_object_invalid",
      details: { key },
      message: expect.stringMatching(why) as unknown,
    });
  });
});

describe("pieces in the bucket", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
  afterEach(() => void vi.useRealTimers());

  const content = Buffer.from("hello");
  const piece = { sha256: createHash("sha256").update(content).digest("hex"), size: content.length };

  it.each([
    ["as they are", null],
    ["encrypted", new Cipher(Buffer.alloc(32, 7))],
  ] as const)("are refused with their keys where they are not what they were: %s", async (_name, cipher) => {
    const blobs = new Blobs(store as unknown as Bucket, cipher);
    await blobs.keep(piece, () => Promise.resolve(content), { signal });
    const key = blobs.keyOf(piece.sha256);
    const there = store.objects.get(key);
    if (there === undefined) throw new Error("it was not sent");
    const wrong = Buffer.from(there.body);
    wrong[1] = (wrong[1] ?? 0) ^ 1;
    // what is wrong may be so on its way, so that it is asked for some times
    for (const body of [wrong, there.body.subarray(1)]) {
      store.objects.set(key, { ...there, body });
      const state = { isOver: false };
      const fetching = blobs.fetch(piece, { file: null, position: 0 }, signal).finally(() => (state.isOver = true));
      fetching.catch(() => undefined); // it may be over before it is looked at
      for (let tries = 0; tries < 100 && !state.isOver; tries++) await vi.advanceTimersByTimeAsync(1_000);
      await expect(fetching).rejects.toMatchObject({ code: "s3_object_invalid", details: { key } });
    }
  });
});
