import { beforeEach, describe, expect, it } from "vitest";
import { FakeObjectStore } from "../core/testing/fake-object-store.js";
import { ModuleObjects } from "./module-objects.js";
import { OlderObjects, olderPart, olderSource } from "./older-objects.js";
import { SealedJson } from "./sealed-json.js";

const { signal } = new AbortController();
let store: FakeObjectStore;
let older: OlderObjects;

beforeEach(() => {
  store = new FakeObjectStore();
  older = new OlderObjects(store, { isOn: true });
});

const put = async (...keys: readonly string[]): Promise<void> => {
  for (const key of keys) await store.write(key, Buffer.from(key), { signal });
};
const all = async <T>(found: AsyncIterable<T>): Promise<T[]> => {
  const list: T[] = [];
  for await (const one of found) list.push(one);
  return list;
};

describe("what older daemons have in a bucket", () => {
  it("is a snapshot below its sandbox, else beside sandboxes", async () => {
    await put("snapshots/box/a.squashfs", "snapshots/box/b.squashfs", "sandboxes/box/snapshots/a.squashfs");
    expect((await older.snapshot("box", "a", signal))?.key).toBe("sandboxes/box/snapshots/a.squashfs");
    expect((await older.snapshot("box", "b", signal))?.key).toBe("snapshots/box/b.squashfs");
    expect(await older.snapshot("box", "c", signal)).toBeNull();
    const listed = await all(older.snapshots(signal));
    expect(listed.map(({ id, label, key }) => `${id} ${label} ${key}`)).toEqual([
      "box a sandboxes/box/snapshots/a.squashfs",
      "box b snapshots/box/b.squashfs",
    ]);
  });

  it("is only what has the name of something, each once", async () => {
    await put(
      ...[
        "modules/100-x.squashfs",
        "modules/.squashfs",
        "modules/-x.squashfs",
        "modules/a/b.squashfs",
        "modules/100-x.cfs",
      ],
      ...[
        "sandboxes/box/snapshots/one.json",
        "sandboxes/box/snapshots/...squashfs",
        "sandboxes/box/upper/one.squashfs",
      ],
      ...[
        "snapshots/box/one.squashfs",
        "snapshots/box2/one.squashfs",
        "snapshots/-box/one.squashfs",
        "snapshots/one.squashfs",
      ],
    );
    expect((await all(older.modules(signal))).map(({ name }) => name)).toEqual(["100-x"]);
    expect((await all(older.snapshots(signal, "box"))).map(({ key }) => key)).toEqual(["snapshots/box/one.squashfs"]);
    expect((await all(older.snapshots(signal))).map(({ id }) => id)).toEqual(["box", "box2"]);
  });

  it("is named with all that belongs to it, for a removal", async () => {
    await put("snapshots/box/a.squashfs", "snapshots/box2/a.squashfs");
    expect(await older.keysOf({ id: "box", label: null }, signal)).toEqual(["snapshots/box/a.squashfs"]);
    expect(await older.keysOf({ id: "box", label: "a" }, signal)).toContain("sandboxes/box/snapshots/a.squashfs");
    expect(await older.keysOf({ module: "m" }, signal)).toEqual([
      "modules/m.squashfs",
      "modules/m.squashfs.manifest.json",
      "modules/m.manifest.json",
    ]);
  });

  it("is not looked at where the bucket is to hold nothing that is not encrypted", async () => {
    await put("modules/m.squashfs", "snapshots/box/a.squashfs");
    const off = new OlderObjects(store, { isOn: false });
    expect([await off.module("m", signal), await off.snapshot("box", "a", signal)]).toEqual([null, null]);
    expect([await all(off.modules(signal)), await all(off.snapshots(signal))]).toEqual([[], []]);
    expect(await off.keysOf({ module: "m" }, signal)).toEqual([]);
  });

  it("has the digest that a manifest beside it names, but not that of ours", async () => {
    const digest = "cd".repeat(32);
    await put("modules/m.squashfs");
    expect(await older.module("m", signal)).toMatchObject({ sha256: null });
    const key = "modules/m.manifest.json";
    const json = new SealedJson(store);
    await json.write(key, { schema: 1, name: "m", file: {}, squashfs_sha256: "ab".repeat(32) }, { signal });
    expect(await older.module("m", signal)).toMatchObject({ sha256: null });
    await store.write(key, Buffer.from(JSON.stringify({ squashfs_sha256: digest })), { signal });
    expect(await older.module("m", signal)).toMatchObject({ sha256: digest });
    await store.write(key, Buffer.from(JSON.stringify({ squashfs_sha256: 1 })), { signal });
    await expect(older.module("m", signal)).rejects.toMatchObject({ code: "s3_object_invalid" });
  });

  it("does not count as a damaged module of ours", async () => {
    const modules = new ModuleObjects(store, new SealedJson(store), "/nowhere/modules.json");
    await store.write("modules/m.manifest.json", Buffer.from(JSON.stringify({ name: "m", version: "2" })), { signal });
    expect(await modules.read("m", signal)).toBeNull();
    expect(await modules.list(signal)).toEqual({ modules: [], problems: new Map() });
    await store.write("modules/n.manifest.json", Buffer.from("{"), { signal });
    await expect(modules.read("n", signal)).rejects.toMatchObject({ code: "s3_object_invalid" });
  });

  it("is told apart from what takes its place", async () => {
    await put("modules/m.squashfs");
    const before = await older.module("m", signal);
    await store.write("modules/m.squashfs", Buffer.from("another"), { signal });
    const after = await older.module("m", signal);
    if (before === null || after === null) throw new Error("it is there");
    expect(olderSource(before)).toMatch(/^an older daemon's modules\/m\.squashfs \([\w.-]+\)$/);
    expect(olderSource(after)).not.toBe(olderSource(before));
    expect(olderPart(after)).not.toBe(olderPart(before));
    expect(olderSource({ ...after, etag: '"\n(odd)' })).toBe("an older daemon's modules/m.squashfs (?)");
  });
});
