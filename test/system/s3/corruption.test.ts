import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { idle, jobDone, mustDo, print, randomModule, synced } from "../../support/s3/bucket-work.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

const mib = 1_048_576;
const base = ["000-base-test"];
const gcState = "gc/state.json";

/** What is done to an object. */
type Damage = (content: Buffer, other: Buffer) => Buffer | null;
const damages: readonly [string, Damage][] = [
  ["have a byte that is another", (content) => flipped(content)],
  ["are shorter", (content) => content.subarray(0, content.length >> 1)],
  ["have the bytes of another", (_content, other) => other],
  ["are gone", () => null],
];

function flipped(content: Buffer): Buffer {
  const other = Buffer.from(content);
  const at = Math.floor(other.length * 0.7);
  other[at] = (other[at] ?? 0) ^ 32;
  return other;
}

const blobOf = (sha256: string): string => `blobs/sha256/${sha256.slice(0, 2)}/${sha256}`;

interface Piece {
  readonly sha256: string;
}

describe.skipIf(lacks("root"))("objects of the bucket that are not what they were", () => {
  let server: S3Server;
  let objects: RawObjects;
  let keeper: TestSquashd;
  let other: TestSquashd;
  let walker: TestSquashd;
  let before: HostState;
  const damaged = new Map<string, Buffer>();

  beforeAll(async () => {
    server = await S3Server.start();
    objects = new RawObjects(server);
    [keeper, other] = [squashdWithBucket(server), squashdWithBucket(server)];
    walker = squashdWithBucket(server, {
      env: { SQUASH_EPHEMERAL: "1", SQUASH_S3_PREFIX: "walks/", SQUASH_CHECKPOINT_INTERVAL: "3600" },
    });
    before = hostState([keeper.mark, other.mark, walker.mark]);
    randomModule(keeper, "501-small", mib);
    randomModule(keeper, "502-large", 18 * mib);
    randomModule(keeper, "503-named", 4_096);
    await Promise.all([keeper.start(), walker.start()]);
    await synced(keeper);
    await other.start();
    await synced(other);
    for (const name of ["501-small", "502-large", "503-named"]) await other.client.removeModule(name);
    for (const id of ["pieces", "manifest", "reserve"]) {
      const sandbox = await keeper.client.create({ id, layers: base });
      await print(sandbox, `head -c ${2 * mib} /dev/urandom >/data`);
      await sandbox.snapshot({ label: "one" }, { wait: "durable" });
      if (id !== "reserve") await other.client.create({ id, layers: base });
    }
    await mustDo(keeper, { kind: "s3-gc" });
  });

  afterAll(async () => {
    for (const one of [keeper, other, walker]) await one[Symbol.asyncDispose]();
    objects[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
    expect(await settledState(before, [keeper.mark, other.mark, walker.mark])).toEqual(before);
  });

  async function damage(how: Damage, key: string, otherKey: string, prefix = "team/"): Promise<void> {
    const content = await objects.get(prefix + key);
    damaged.set(prefix + key, content);
    const put = how(content, damaged.get(prefix + otherKey) ?? (await objects.get(prefix + otherKey)));
    if (put === null) await objects.remove(prefix + key);
    else await objects.put(prefix + key, put);
  }

  async function mend(): Promise<void> {
    for (const [key, content] of damaged) await objects.put(key, content);
    damaged.clear();
  }

  async function moduleBlob(name: string): Promise<string> {
    const found = (await keeper.client.bucketModules()).find((one) => one.name === name);
    return blobOf(found?.sha256 ?? "");
  }

  async function pieceOf(id: string): Promise<string> {
    const text = (await objects.get(`team/sandboxes/${id}/snapshots/one.json`)).toString();
    const { images } = JSON.parse(text) as { images: { file: { pieces: Piece[] } }[] };
    return blobOf(images[0]?.file.pieces.at(-1)?.sha256 ?? "");
  }

  it.each(damages)("are refused by their names when they %s, and nothing of them is mounted", async (_name, how) => {
    const [small, large, named] = await Promise.all(["501-small", "502-large", "503-named"].map(moduleBlob));
    const [piece, reserve] = [await pieceOf("pieces"), await pieceOf("reserve")];
    const manifests = ["modules/503-named.manifest.json", "sandboxes/manifest/snapshots/one.json"] as const;
    const kinds: [key: string, otherKey: string, pull: () => Promise<unknown>, lost: string][] = [
      [
        small ?? "",
        named ?? "",
        () => other.client.create({ id: "small", layers: ["501-small", ...base] }),
        "s3_object_missing",
      ],
      [
        large ?? "",
        small ?? "",
        () => other.client.create({ id: "large", layers: ["502-large", ...base] }),
        "s3_object_missing",
      ],
      [
        manifests[0],
        "modules/501-small.manifest.json",
        () => other.client.create({ id: "named", layers: ["503-named", ...base] }),
        "module_not_found",
      ],
      [piece, reserve, () => other.client.sandbox("pieces").restore("one"), "s3_object_missing"],
      [
        manifests[1],
        "sandboxes/reserve/snapshots/one.json",
        () => other.client.sandbox("manifest").restore("one"),
        "snapshot_not_found",
      ],
    ];
    // what was fetched of them before this test is no part of it
    for (const [key, otherKey] of kinds) await damage(how, key, otherKey);
    const isLost = how(Buffer.alloc(1), Buffer.alloc(1)) === null;
    const failures = await Promise.all(
      kinds.map(([, , pull]) =>
        pull().then(
          () => null,
          (error: unknown) => error as { code: string; message: string },
        ),
      ),
    );
    const verified = await jobDone(keeper, { kind: "s3-verify", deep: true });
    const said = verified.lines.join("\n");
    for (const [index, [key, , , lost]] of kinds.entries()) {
      const isManifest = key.endsWith(".json");
      const { code, message } = failures[index] ?? { code: "none", message: "" };
      expect({ key, code }).toEqual({ key, code: isLost ? lost : "s3_object_invalid" });
      if (!(isLost && isManifest)) {
        expect(message).toContain(`"${key}"`);
        expect(said).toContain(`"${key}"`);
      }
    }
    expect(verified).toMatchObject({ state: "failed", code: "s3_failed" });
    const listed = (await other.client.bucketModules()).find(({ name }) => name === "503-named");
    if (isLost) expect(listed).toBeUndefined();
    else
      expect(listed).toMatchObject({
        format: null,
        sha256: null,
        here: "no",
        problem: expect.stringContaining(manifests[0]) as string,
      });
    expect((await other.client.modules()).map(({ name }) => name)).toEqual(["000-base-test", "100-extra"]);
    expect((await other.client.list()).map(({ id }) => id).toSorted()).toEqual(["manifest", "pieces"]);
    for (const id of ["manifest", "pieces"]) expect(await other.client.sandbox(id).history()).toEqual([]);
    await mend();
    await mustDo(keeper, { kind: "s3-verify", deep: true });
  });

  it("do not have anything removed, while they cannot be read", async () => {
    await objects.put("team/blobs/sha256/00/unnamed", Buffer.from("nothing names it"));
    for (const [key, otherKey] of [
      ["modules/503-named.manifest.json", "modules/501-small.manifest.json"],
      ["sandboxes/manifest/snapshots/one.json", "sandboxes/reserve/snapshots/one.json"],
      [gcState, "modules/501-small.manifest.json"],
    ] as const)
      for (const [, how] of damages.slice(0, 3)) {
        await damage(how, key, otherKey);
        const keys = await objects.keys("team/blobs/");
        const swept = await jobDone(keeper, { kind: "s3-gc", grace_s: 0 });
        expect(swept).toMatchObject({
          code: "s3_object_invalid",
          error: expect.stringContaining(`"${key}"`) as unknown,
        });
        expect(await objects.keys("team/blobs/")).toEqual(keys);
        expect((await jobDone(keeper, { kind: "s3-verify" })).error).toContain(`"${key}"`);
        if (key === gcState)
          expect(await jobDone(keeper, { kind: "push", module: "501-small" })).toMatchObject({
            code: "s3_object_invalid",
          });
        await mend();
      }
    await mustDo(keeper, { kind: "s3-gc", grace_s: 0 });
    expect(await objects.keys("team/blobs/sha256/00/unnamed")).toEqual([]);
    await mustDo(keeper, { kind: "s3-verify", deep: true });
  });

  it("are replaced by who has what they were, where that is asked for", async () => {
    const key = "modules/501-small.manifest.json";
    await damage(flipped, key, key);
    expect(await jobDone(keeper, { kind: "push", module: "501-small" })).toMatchObject({ code: "s3_object_invalid" });
    await mustDo(keeper, { kind: "push", module: "501-small", replace: true });
    const large = await moduleBlob("502-large");
    await damage((content) => content.subarray(0, 9 * mib), large, large);
    await mustDo(keeper, { kind: "push", module: "502-large" });
    await mustDo(keeper, { kind: "s3-verify", deep: true });
    damaged.clear();
  });

  it("are found where they say what a sandbox is", async () => {
    for (const id of ["goes", "stays"]) {
      const sandbox = await walker.client.create({ id, layers: base });
      await print(sandbox, `echo ${id} >/f`);
      await sandbox.destroy();
    }
    const key = "sandboxes/goes/manifest.json";
    for (const [, how] of damages.slice(0, 3)) {
      await damage(how, key, "sandboxes/stays/manifest.json", "walks/");
      await expect(walker.client.create({ id: "goes" })).rejects.toMatchObject({
        code: "s3_object_invalid",
        message: expect.stringContaining(key) as unknown,
      });
      expect((await jobDone(walker, { kind: "s3-verify" })).error).toContain(key);
      await mend();
    }
    const [snapshot = ""] = await objects.keys("walks/sandboxes/goes/snapshots/");
    await damage(() => null, snapshot.slice("walks/".length), key, "walks/");
    await expect(walker.client.create({ id: "goes" })).rejects.toMatchObject({ code: "s3_object_missing" });
    expect((await jobDone(walker, { kind: "s3-verify" })).error).toMatch(
      /sandbox goes: its snapshot ".*" is not there/,
    );
    await mend();
    const again = await walker.client.create({ id: "goes" });
    expect(await print(again, "cat /f")).toBe("goes\n");
    await again.destroy();
    await idle(walker);
  });
});
