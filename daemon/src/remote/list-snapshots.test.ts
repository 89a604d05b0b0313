import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { FakeObjectStore } from "../core/testing/fake-object-store.js";
import { SealedJson } from "../s3/sealed-json.js";
import { SnapshotObjects } from "../s3/snapshot-objects.js";
import { listSnapshots } from "./list-snapshots.js";

const { signal } = new AbortController();
const digest = "ab".repeat(32);
const created = "2026-01-02T03:04:05.678Z";

async function bucketOf(
  ...places: [id: string, label: string][]
): Promise<{ store: FakeObjectStore; snapshots: SnapshotObjects }> {
  const store = new FakeObjectStore({ sleep: (ms) => (ms === 0 ? Promise.resolve() : sleep(ms)) });
  const snapshots = new SnapshotObjects(store, new SealedJson(store));
  const file = { size: 5, sha256: null, stored: "pieces", pieces: [{ sha256: digest, size: 5 }] } as const;
  const images = [{ name: "0".repeat(32), file }];
  const same = { parent: null, by: null, machine: "here", size: 5, created, sandboxCreated: created };
  for (const [id, label] of places)
    await snapshots.write({ ...same, id, label, layers: ["000-base"], images }, { etag: null, signal });
  return { store, snapshots };
}

function damage(store: FakeObjectStore, key: string): void {
  const there = store.objects.get(key);
  if (there === undefined) throw new Error(`there is no "${key}"`);
  store.objects.set(key, { ...there, body: Buffer.from("{}") });
}

describe("a list of the snapshots in the bucket", () => {
  it("has all of them, in the order of their letters, or those of one sandbox", async () => {
    const places: [string, string][] = Array.from({ length: 30 }, (_, at) => ["box", `s${at + 10}`]);
    const { store, snapshots } = await bucketOf(...places, ["other", "one"]);
    // whose answers come in another order
    let asked = 0;
    store.fate = (operation) => (operation === "read" && asked++ % 2 === 0 ? { back: 5 } : {});
    const info = { created, size: 5, layers: ["000-base"], older: false, problem: null };
    const all = await listSnapshots(snapshots, null, signal);
    expect(all).toEqual([...places, ["other", "one"]].map(([id, label]) => ({ id, label, ...info })));
    expect((await listSnapshots(snapshots, "other", signal)).map(({ label }) => label)).toEqual(["one"]);
  });

  it("has what is damaged, and what is wrong with that, beside all others", async () => {
    const { store, snapshots } = await bucketOf(["box", "a"], ["box", "b"], ["box", "c"]);
    const key = "sandboxes/box/snapshots/b.json";
    damage(store, key);
    const listed = await listSnapshots(snapshots, "box", signal);
    expect(listed.map(({ label, problem }) => [label, problem === null])).toEqual([
      ["a", true],
      ["b", false],
      ["c", true],
    ]);
    expect(listed[1]).toMatchObject({ created: null, problem: expect.stringContaining(key) as unknown });
  });

  it("fails as a whole where the bucket cannot be asked", async () => {
    const { store, snapshots } = await bucketOf(["box", "a"]);
    store.fate = (operation) => (operation === "read" ? { fault: "unreachable" } : {});
    await expect(listSnapshots(snapshots, null, signal)).rejects.toMatchObject({ code: "s3_unreachable" });
  });
});
