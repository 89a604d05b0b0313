import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SnapshotDigests } from "./snapshot-digests.js";

const never = new AbortController().signal;
let home: string;
let path: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "squash-digests-"));
  path = join(home, "0123.erofs");
  writeFileSync(path, image());
});
afterEach(() => rmSync(home, { recursive: true }));

/** Three blocks that begin as an erofs image does. */
function image(): Buffer {
  const bytes = Buffer.alloc(3 * 4096, "content");
  bytes.writeUInt32LE(0xe0f5e1e2, 1024);
  bytes.writeUInt8(12, 1024 + 12);
  bytes.writeUInt32LE(3, 1024 + 36);
  return bytes;
}

const seal = (): Record<string, unknown> =>
  JSON.parse(readFileSync(join(home, "0123.seal"), "utf8")) as Record<string, unknown>;
const damage = { code: "snapshot_damaged" };

describe("an image that is sealed", () => {
  it("passes as long as it is what it was, wherever it lies", async () => {
    const digests = new SnapshotDigests("one");
    expect(digests.known(path)).toBeNull();
    await digests.seal(path, never);
    expect(digests.known(path)).toMatch(/^[0-9a-f]{64}$/);
    await digests.check(path);
    copyFileSync(path, join(home, "copy"));
    renameSync(join(home, "copy"), path); // another file with the same content
    await digests.check(path);
    expect(seal()["sha256"]).toBe(digests.known(path));
    await digests.remove(path);
    expect(existsSync(join(home, "0123.seal"))).toBe(false);
    expect(digests.known(path)).toBeNull();
  });

  it("is read again after a restart of the machine, once", async () => {
    await new SnapshotDigests("one").seal(path, never);
    writeFileSync(join(home, "0123.seal"), JSON.stringify({ ...seal(), sha256: "0".repeat(64) }));
    await new SnapshotDigests("one").check(path); // the same boot, the same file: not read
    await expect(new SnapshotDigests("two").check(path)).rejects.toMatchObject(damage);
    rmSync(join(home, "0123.seal"));
    await new SnapshotDigests("one").seal(path, never);
    const later = new SnapshotDigests("two");
    await Promise.all([later.check(path), later.check(path)]);
    expect(seal()).toMatchObject({ boot: "two" });
  });

  it("is refused with any change of its bytes, and with more or fewer of them", async () => {
    const whole = image();
    await new SnapshotDigests("one").seal(path, never);
    const change = fc.oneof(
      fc.record({ at: fc.nat(whole.length - 1), xor: fc.integer({ min: 1, max: 255 }) }),
      fc.record({ size: fc.nat(whole.length - 1) }),
      fc.record({ more: fc.uint8Array({ minLength: 1, maxLength: 9 }) }),
    );
    await fc.assert(
      fc.asyncProperty(change, async (one) => {
        writeFileSync(path, whole);
        if ("at" in one) {
          const bytes = Buffer.from(whole);
          bytes[one.at] = (bytes[one.at] ?? 0) ^ one.xor;
          writeFileSync(path, bytes);
        } else if ("size" in one) truncateSync(path, one.size);
        else appendFileSync(path, one.more);
        await expect(new SnapshotDigests("one").check(path)).rejects.toMatchObject(damage);
      }),
      { numRuns: 60 },
    );
  });
});

describe("an image that is not sealed yet", () => {
  it("is looked at all the same", async () => {
    const digests = new SnapshotDigests("one");
    await digests.check(path);
    truncateSync(path, 2 * 4096);
    await expect(digests.check(path)).rejects.toMatchObject({ ...damage, message: /is cut off/ });
    await expect(digests.seal(path, never)).rejects.toMatchObject(damage);
    writeFileSync(path, "x");
    await expect(digests.check(path)).rejects.toMatchObject({ ...damage, message: /is no erofs image/ });
    rmSync(path);
    await expect(digests.check(path)).rejects.toMatchObject({ ...damage, message: /is missing/ });
    await expect(digests.seal(path, never)).rejects.toMatchObject(damage);
  });

  it("is sealed anew where the seal is cut off", async () => {
    writeFileSync(join(home, "0123.seal"), '{"version":1,"size":');
    const digests = new SnapshotDigests("one");
    await digests.check(path);
    await digests.seal(path, never);
    expect(seal()).toMatchObject({ version: 1, size: 3 * 4096 });
  });

  it("is not sealed by who was called off", async () => {
    const off = new AbortController();
    off.abort(new Error("called off"));
    await expect(new SnapshotDigests("one").seal(path, off.signal)).rejects.toThrow("called off");
    expect(existsSync(join(home, "0123.seal"))).toBe(false);
  });
});
