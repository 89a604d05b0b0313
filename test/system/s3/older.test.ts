import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { print } from "../../support/crash-trials.js";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { idle, jobDone, mustDo } from "../../support/s3/bucket-work.js";
import { useSquashd } from "../../support/own-squashd.js";
import { olderImage } from "../../support/s3/older-image.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { bucketSettings, squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import { sha256Of } from "../../support/rootfs.js";
import type { TestSquashd } from "../../support/squashd.js";

const layers = ["000-base-test", "100-extra"];

/** What an older daemon's sandbox has written above `layers`: a file removed, a directory replaced, and files of each kind. */
const upper = `
  mkdir -p opt/extra etc/profile.d w/deep
  mknod opt/extra/file c 0 0
  setfattr -n trusted.overlay.opaque -v y etc/profile.d
  setfattr -n trusted.overlay.origin -v 0x00fb2100 etc/profile.d
  echo 'export EXTRA=replaced' >etc/profile.d/own.sh
  echo kept >w/file; ln w/file w/hard; ln -s file w/link; mkfifo w/pipe; truncate -s 3M w/hole
  chown 12:34 w/link -h; chown 1000:2000 w/deep; chmod 4751 w/file
  setfattr -n user.note -v mine w/deep
  touch -d @1700000000 w/file
`;

describe.skipIf(lacks("root"))("what an older daemon has put into the bucket", () => {
  let server: S3Server;
  let objects: RawObjects;
  let squashd: TestSquashd;
  let before: HostState;

  beforeAll(async () => {
    server = await S3Server.start();
    objects = new RawObjects(server);
    squashd = squashdWithBucket(server);
    before = hostState([squashd.mark]);
    await squashd.start();
  });

  afterEach(() => squashd.destroyAll());

  afterAll(async () => {
    await squashd[Symbol.asyncDispose]();
    objects[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
    expect(await settledState(before, [squashd.mark])).toEqual(before);
  });

  it.each([
    ["below its sandbox", "team/sandboxes/box/snapshots/clean.squashfs", "gzip"],
    ["beside sandboxes", "team/snapshots/box/other.squashfs", "zstd"],
  ] as const)("is a snapshot %s, which a restore brings back with all that it hides", async (_, key, packing) => {
    const label = /([^/]+)\.squashfs$/.exec(key)?.[1] ?? "";
    await objects.put(key, olderImage(upper, { packing }));
    const box = await squashd.client.create({ id: "box", layers });
    await print(box, "echo gone >/mine");
    await box.restore(label);
    const survey = "cd /w && stat -c '%n %F %u:%g %a %h' * && stat -c %Y file && cat file && stat -c %s hole";
    expect(await print(box, survey)).toBe(
      "deep directory 1000:2000 755 2\n" +
        "file regular file 0:0 4751 2\nhard regular file 0:0 4751 2\n" +
        "hole regular file 0:0 644 1\nlink symbolic link 12:34 777 1\npipe fifo 0:0 644 1\n" +
        "1700000000\nkept\n3145728\n",
    );
    expect(await print(box, "ls -A /opt/extra /etc/profile.d; ls /mine 2>&1 | wc -l; echo $EXTRA")).toBe(
      "/etc/profile.d:\nown.sh\n\n/opt/extra:\nbin\n1\nreplaced\n",
    );
    const [entry] = await box.history();
    expect(entry).toMatchObject({ label, layers: ["100-extra", "000-base-test"], depth: 1 });
    expect(entry?.by).toContain(key.slice("team/".length));
    // and goes on as any other
    await print(box, "rm /w/file; echo new >/w/new");
    await box.snapshot({ label: `after-${label}` }, { wait: "durable" });
    await box.destroy();
    const again = await squashd.client.create({ id: "box", layers });
    await again.restore(`after-${label}`);
    expect(await print(again, "ls /w; cat /w/new /w/hard")).toBe("deep\nhard\nhole\nlink\nnew\npipe\nnew\nkept\n");
  });

  it("is asked for only where there is nothing of our own, and stays as it is", async () => {
    const key = "team/sandboxes/own/snapshots/one.squashfs";
    const image = olderImage("echo older >f");
    const box = await squashd.client.create({ id: "own", layers });
    await print(box, "echo ours >/f");
    await box.snapshot({ label: "one" }, { wait: "durable" });
    await objects.put(key, image);
    await box.destroy();
    const again = await squashd.client.create({ id: "own", layers });
    await again.restore("one");
    expect(await print(again, "cat /f")).toBe("ours\n");
    await again.deleteSnapshot("one");
    await idle(squashd);
    expect(await objects.get(key)).toEqual(image);
    await again.restore("one");
    expect(await print(again, "cat /f")).toBe("older\n");
    expect(await objects.get(key)).toEqual(image);
  });

  it("is a module, which a create fetches, with a manifest or without", async () => {
    const image = olderImage("mkdir -p opt/old; echo module >opt/old/file; chmod 4755 opt/old/file", {
      packing: "zstd",
    });
    await objects.put("team/modules/300-old.squashfs", image);
    const named = { schema: 1, name: "301-named", version: "2", builder: "sq-mkmod", squashfs_sha256: sha256Of(image) };
    await objects.put("team/modules/301-named.squashfs", image);
    await objects.put("team/modules/301-named.manifest.json", Buffer.from(JSON.stringify(named)));
    const box = await squashd.client.create({ id: "mods", layers: ["000-base-test", "300-old"] });
    expect(await print(box, "cat /opt/old/file; stat -c %a /opt/old/file")).toBe("module\n4755\n");
    await box.activate("301-named");
    const module = await squashd.client.module("300-old");
    expect(module).toMatchObject({ format: "erofs", formats: ["erofs"], problem: null });
    expect(module.source).toMatch(/^an older daemon's modules\/300-old\.squashfs \([0-9a-f]+\)$/);
    const found = (await squashd.client.bucketModules()).filter(({ older }) => older);
    expect(found.map(({ name, format, size, sha256, here }) => [name, format, size, sha256, here])).toEqual([
      ["300-old", "squashfs", image.length, null, "same"],
      ["301-named", "squashfs", image.length, null, "same"],
    ]);
    expect((await squashd.sq("s3", "ls")).stdout).toMatch(/300-old .*\(of an older daemon\)/);
  });

  it("is neither in the way of those who look after the bucket, nor swept", async () => {
    const keys = (await objects.keys()).filter((key) => key.endsWith(".squashfs") || key.includes("301-named"));
    expect(keys.length).toBeGreaterThan(4);
    await mustDo(squashd, { kind: "s3-gc", grace_s: 0 });
    await mustDo(squashd, { kind: "s3-verify", deep: true });
    expect(await objects.keys()).toEqual(expect.arrayContaining(keys));
  });

  it("comes with a comparison where it is not here, and never takes the place of anything", async () => {
    await objects.put("team/modules/100-extra.squashfs", olderImage("mkdir opt; echo other >opt/other"));
    await objects.put("team/modules/302-new.squashfs", olderImage("mkdir opt; echo new >opt/new"));
    const before = await squashd.client.module("100-extra");
    await mustDo(squashd, { kind: "sync" });
    expect(await squashd.client.module("100-extra")).toEqual(before);
    expect(await squashd.client.module("302-new")).toMatchObject({ format: "erofs", problem: null });
    // what was made of it goes to the bucket when that is asked for; what was not, only by replacing
    await mustDo(squashd, { kind: "push", module: "302-new" });
    await squashd.client.removeModule("302-new");
    await mustDo(squashd, { kind: "sync" });
    await expect(squashd.client.module("302-new")).rejects.toMatchObject({ code: "module_not_found" });
    await squashd.client.removeBucketModule("302-new");
    expect(await objects.keys("team/modules/302-new")).toEqual([]);
    await squashd.client.removeBucketModule("100-extra");
    await objects.put("team/modules/100-extra.squashfs", olderImage("mkdir opt; echo other >opt/other"));
    expect(await jobDone(squashd, { kind: "push", module: "100-extra" })).toMatchObject({ code: "module_exists" });
    await squashd.client.removeBucketModule("100-extra");
    await mustDo(squashd, { kind: "push", module: "100-extra" });
  });

  it("is fetched, listed and taken out as any other", async () => {
    for (const key of ["sandboxes/all/snapshots/a", "snapshots/all/a", "snapshots/all/b"])
      await objects.put(`team/${key}.squashfs`, olderImage(`echo ${key} >f`));
    const box = await squashd.client.create({ id: "all", layers });
    await mustDo(squashd, { kind: "sync" });
    expect(await box.history()).toEqual([]);
    await mustDo(squashd, { kind: "sync", sandbox: "all" });
    expect((await box.history()).map(({ label }) => label).toSorted()).toEqual(["a", "b"]);
    const listed = (await squashd.client.bucketSnapshots("all")).filter(({ older }) => older);
    expect(listed.map(({ label, layers: on }) => [label, on])).toEqual([
      ["a", []],
      ["b", []],
    ]);
    expect((await squashd.sq("s3", "ls", "all")).stdout).toMatch(/all +b .*\(of an older daemon\)/);
    await squashd.client.removeBucketSnapshot("all", "a");
    expect((await objects.keys()).filter((key) => key.includes("/all/"))).toEqual(["team/snapshots/all/b.squashfs"]);
    await squashd.client.removeBucketSandbox("all");
    expect((await objects.keys()).filter((key) => key.includes("/all/"))).toEqual([]);
    await box.restore("b");
    expect(await print(box, "cat /f")).toBe("snapshots/all/b\n");
  });
});

describe.skipIf(lacks("root"))("a sandbox that an older daemon has kept in the bucket", async () => {
  const server = await S3Server.start();
  const objects = new RawObjects(server);
  const squashd = useSquashd({ here: true, env: { ...bucketSettings(server), SQUASH_EPHEMERAL: "1" } });

  afterAll(async () => {
    await squashd.destroyAll();
    objects[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  const putManifest = (id: string, more: object = {}): Promise<void> => {
    const fields = { id, layers: "000-base-test,100-extra", owner: "ann", task: "t", cpu: 1, memory_mb: 300 };
    const manifest = { ...fields, max_lifetime_s: 0, allow_net: null, latest_snapshot: "", ...more };
    return objects.put(`team/sandboxes/${id}/manifest.json`, Buffer.from(JSON.stringify(manifest)));
  };

  it("goes on with its modules, limits and files, and is ours from then on", async () => {
    await objects.put("team/sandboxes/kept/snapshots/last.squashfs", olderImage(upper));
    await putManifest("kept", { latest_snapshot: "last" });
    const box = await squashd.client.create({ id: "kept" });
    expect(await box.info()).toMatchObject({ owner: "ann", memory_mb: 300, layers: ["100-extra", "000-base-test"] });
    expect(await print(box, "cat /w/file; ls -A /opt/extra /etc/profile.d")).toBe(
      "kept\n/etc/profile.d:\nown.sh\n\n/opt/extra:\nbin\n",
    );
    await print(box, "echo more >>/w/file");
    await box.destroy();
    const manifest = JSON.parse((await objects.get("team/sandboxes/kept/manifest.json")).toString()) as object;
    expect(manifest).toMatchObject({ schema: 1, id: "kept", lease: null });
    await objects.remove("team/sandboxes/kept/snapshots/last.squashfs");
    const again = await squashd.client.create({ id: "kept" });
    expect(await print(again, "cat /w/file")).toBe("kept\nmore\n");
  });

  it("begins anew where it has no snapshot, and is refused where that is missing", async () => {
    await putManifest("empty");
    const box = await squashd.client.create({ id: "empty" });
    expect(await box.info()).toMatchObject({ memory_mb: 300, layers: ["100-extra", "000-base-test"] });
    await putManifest("gone", { latest_snapshot: "nowhere" });
    await expect(squashd.client.create({ id: "gone" })).rejects.toMatchObject({ code: "s3_object_missing" });
    await putManifest("odd", { latest_snapshot: "../x" });
    await expect(squashd.client.create({ id: "odd" })).rejects.toMatchObject({ code: "s3_object_invalid" });
  });
});
