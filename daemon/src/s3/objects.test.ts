import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeObjectStore } from "../core/testing/fake-object-store.js";
import { ModuleObjects } from "./module-objects.js";
import { SealedJson } from "./sealed-json.js";
import { SnapshotObjects, type SnapshotObject } from "./snapshot-objects.js";

const { signal } = new AbortController();
const digest = "ab".repeat(32);
const file = { size: 5, sha256: digest, stored: "whole", pieces: [{ sha256: digest, size: 5 }] } as const;
/** all that the catalog takes */
const names = ["_first", "000-base", "A.b-c_9", "x".repeat(128)];

let folder: string;
let modules: ModuleObjects;
let snapshots: SnapshotObjects;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "objects-"));
  const store = new FakeObjectStore();
  const json = new SealedJson(store);
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
});

describe("snapshots in the bucket", () => {
  it("are read as they were written, upon modules of any name that there can be", async () => {
    const snapshot = snapshotUpon(names);
    await snapshots.write(snapshot, { etag: null, signal });
    expect(await snapshots.read("box", "clean", signal)).toMatchObject(snapshot);
  });

  it("are refused upon what cannot be a module", async () => {
    await snapshots.write(snapshotUpon(["../etc"]), { etag: null, signal });
    await expect(snapshots.read("box", "clean", signal)).rejects.toMatchObject({ code: "s3_object_invalid" });
  });
});
