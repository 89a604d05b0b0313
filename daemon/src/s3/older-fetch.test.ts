import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeObjectStore } from "../core/testing/fake-object-store.js";
import { fetchOlder } from "./older-fetch.js";
import type { OlderImage } from "./older-objects.js";

const { signal } = new AbortController();
const key = "modules/m.squashfs";
const content = Buffer.from(Array.from({ length: 20 * 1_048_576 + 5 }, (_, at) => (at * 7) % 251));
let folder: string;
let path: string;
let store: FakeObjectStore;
let ranges: number[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "older-fetch-"));
  path = join(folder, "part");
  store = new FakeObjectStore();
  await store.write(key, content, { signal });
  ranges = [];
  const { readRange } = store;
  store.readRange = (of, range, ...rest) => {
    ranges.push(range.start);
    return readRange.call(store, of, range, ...rest);
  };
});
afterEach(() => rmSync(folder, { recursive: true }));

async function image(sha256: string | null = null): Promise<OlderImage> {
  const facts = await store.head(key, signal);
  if (facts === null) throw new Error("it is there");
  return { ...facts, sha256 };
}

const fetch = async (of: OlderImage): Promise<number> => {
  let bytes = 0;
  await fetchOlder(store, of, path, { signal, progress: (more) => (bytes += more) });
  return bytes;
};

describe("an older daemon's image", () => {
  it("is fetched whole, and told of", async () => {
    expect(await fetch(await image())).toBe(content.length);
    expect(readFileSync(path).equals(content)).toBe(true);
    expect(ranges).toEqual([0, 8_388_608, 16_777_216]);
  });

  it("is gone on with where an earlier try broke off", async () => {
    writeFileSync(path, content.subarray(0, 10_000_000));
    expect(await fetch(await image(createHash("sha256").update(content).digest("hex")))).toBe(content.length);
    expect(readFileSync(path).equals(content)).toBe(true);
    expect(ranges[0]).toBe(10_000_000);
  });

  it("is begun anew where more is there than it has", async () => {
    writeFileSync(path, Buffer.alloc(content.length + 1));
    await fetch(await image());
    expect(readFileSync(path).equals(content)).toBe(true);
  });

  it("is refused with another digest than its manifest's, and nothing of it stays", async () => {
    const wanted = await image("0".repeat(64));
    await expect(fetch(wanted)).rejects.toMatchObject({ code: "s3_object_invalid", message: /its manifest says 0000/ });
    expect(existsSync(path)).toBe(false);
  });

  it("is refused where it was replaced meanwhile, and nothing of it stays", async () => {
    const wanted = await image();
    const { readRange } = store;
    store.readRange = async (...args) => {
      const found = await readRange.apply(store, args);
      await store.write(key, Buffer.alloc(content.length, 1), { signal });
      return found;
    };
    await expect(fetch(wanted)).rejects.toMatchObject({ code: "s3_object_invalid", message: /was replaced/ });
    expect(existsSync(path)).toBe(false);
  });

  it("is refused where it ends early, and what came stays for the next try", async () => {
    const wanted = { ...(await image()), size: content.length + 10 };
    await expect(fetch(wanted)).rejects.toMatchObject({ code: "s3_object_invalid", message: /ends after/ });
    expect(readFileSync(path).length).toBe(content.length);
  });
});
