import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { FakeObjectStore } from "../core/testing/fake-object-store.js";
import { Cipher } from "./cipher.js";
import { SealedJson } from "./sealed-json.js";
import { SealedStore } from "./sealed-store.js";

const { signal } = new AbortController();
const options = { maxBytes: 65_536, signal };
const cipher = new Cipher(randomBytes(32));
const invalid = (key: string): object => ({
  code: "s3_object_invalid",
  message: expect.stringContaining(`"${key}"`) as unknown,
});

/** All that differ from some bytes in one. */
function* flipped(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at++) {
    const other = Buffer.from(bytes);
    other[at] = (other[at] ?? 0) ^ 1;
    yield other;
  }
}

/** Changes an object's bytes behind the store's back. */
function spoil(store: FakeObjectStore, key: string, body: Buffer): void {
  const there = store.objects.get(key);
  if (there === undefined) throw new Error(`there is no "${key}"`);
  store.objects.set(key, { ...there, body, size: body.length });
}

describe("a cipher", () => {
  it("opens what it has sealed, and nothing that was changed, is another's or of another key", () => {
    const plain = randomBytes(100);
    const sealed = cipher.seal("subject", plain);
    expect(sealed.length).toBe(cipher.sealedSize(100));
    expect(cipher.open("subject", sealed)?.equals(plain)).toBe(true);
    for (const other of flipped(sealed)) expect(cipher.open("subject", other)).toBeNull();
    for (let size = 0; size < sealed.length; size++)
      expect(cipher.open("subject", sealed.subarray(0, size))).toBeNull();
    expect(cipher.open("subject", Buffer.concat([sealed, Buffer.alloc(1)]))).toBeNull();
    expect(cipher.open("subject 2", sealed)).toBeNull();
    expect(new Cipher(randomBytes(32)).open("subject", sealed)).toBeNull();
    expect(cipher.open("subject", sealed, 99)).toBeNull();
  });

  it("makes the same bytes of the same piece, with names that do not tell digests", () => {
    const plain = Buffer.from("the same");
    const digest = "ab".repeat(32);
    expect(cipher.seal(digest, plain)).toEqual(cipher.seal(digest, plain));
    expect(cipher.seal(digest, plain)).not.toEqual(cipher.seal("cd".repeat(32), plain));
    expect(cipher.nameOf(digest)).toMatch(/^[0-9a-f]{64}$/);
    expect(cipher.nameOf(digest)).toBe(cipher.nameOf(digest));
    expect(cipher.nameOf(digest)).not.toBe(digest);
    expect(cipher.nameOf(digest)).not.toBe(new Cipher(randomBytes(32)).nameOf(digest));
  });

  it("takes keys of 32 bytes only", () => {
    for (const size of [0, 16, 31, 33]) expect(() => new Cipher(randomBytes(size))).toThrow("32 bytes");
  });
});

describe("JSON that says its digest", () => {
  it("is read as it was written, and not where any byte is another", async () => {
    const store = new FakeObjectStore();
    const json = new SealedJson(store);
    const value = { a: 1, list: ["x", null], deep: { é: "ü" } };
    await json.write("key", value, { signal });
    expect((await json.read("key", options))?.value).toEqual(value);
    const { body } = store.objects.get("key") ?? { body: Buffer.alloc(0) };
    for (const other of flipped(body)) {
      spoil(store, "key", other);
      await expect(json.read("key", options)).rejects.toMatchObject(invalid("key"));
    }
    for (const text of ["", "[]", "null", "{}", body.toString().slice(0, -1), `{"a":1,"digest":null}`]) {
      spoil(store, "key", Buffer.from(text));
      await expect(json.read("key", options)).rejects.toMatchObject(invalid("key"));
    }
    expect(await json.read("none", options)).toBeNull();
  });

  it("is written only where the condition holds", async () => {
    const json = new SealedJson(new FakeObjectStore());
    const absent = { condition: { kind: "absent" }, signal } as const;
    const written = await json.write("key", { a: 1 }, absent);
    expect(await json.write("key", { a: 2 }, absent)).toBeNull();
    const condition = { kind: "same", etag: written?.etag ?? "" } as const;
    expect(await json.write("key", { a: 2 }, { condition, signal })).not.toBeNull();
    expect(await json.write("key", { a: 3 }, { condition, signal })).toBeNull();
    expect((await json.read("key", options))?.value).toEqual({ a: 2 });
  });
});

describe("a store that is encrypted", () => {
  const plain = Buffer.from("a canary sings here");

  it("holds nothing of what it is given, and gives it back", async () => {
    const store = new FakeObjectStore();
    const sealed = new SealedStore(store, cipher);
    await sealed.write("a", plain, { signal });
    expect(store.objects.get("a")?.body.includes("canary")).toBe(false);
    expect((await sealed.read("a", options))?.body).toEqual(plain);
    expect(await sealed.read("b", options)).toBeNull();
    const first = store.objects.get("a")?.body;
    await sealed.write("a", plain, { signal });
    expect(store.objects.get("a")?.body).not.toEqual(first);
  });

  it("finds every byte that was changed, and what was put under another key", async () => {
    const store = new FakeObjectStore();
    const sealed = new SealedStore(store, cipher);
    await sealed.write("a", plain, { signal });
    await sealed.write("b", Buffer.from("other"), { signal });
    const body = store.objects.get("a")?.body ?? Buffer.alloc(0);
    spoil(store, "b", body);
    await expect(sealed.read("b", options)).rejects.toMatchObject(invalid("b"));
    for (const other of flipped(body)) {
      spoil(store, "a", other);
      await expect(sealed.read("a", options)).rejects.toMatchObject(invalid("a"));
    }
    for (let size = 0; size < body.length; size++) {
      spoil(store, "a", body.subarray(0, size));
      await expect(sealed.read("a", options)).rejects.toMatchObject(invalid("a"));
    }
  });

  it("is not read without the key or with another, nor takes what is plain", async () => {
    const store = new FakeObjectStore();
    await new SealedStore(store, cipher).write("sealed", plain, { signal });
    await new SealedStore(store, null).write("plain", plain, { signal });
    const another = new SealedStore(store, new Cipher(randomBytes(32)));
    await expect(another.read("sealed", options)).rejects.toMatchObject(invalid("sealed"));
    await expect(new SealedStore(store, null).read("sealed", options)).rejects.toThrow("SQUASH_S3_KEY_FILE is not set");
    await expect(new SealedStore(store, cipher).read("plain", options)).rejects.toThrow("it is not encrypted");
  });
});
