import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { isSquashError } from "@squash/sdk";
import { print } from "../../support/crash-trials.js";
import { lacks } from "../../support/needs.js";
import { useSquashd } from "../../support/own-squashd.js";
import { randomNumbers } from "../../support/random-numbers.js";
import { halfPlaced, jobDone } from "../../support/s3/bucket-work.js";
import { olderImage } from "../../support/s3/older-image.js";
import { RawObjects } from "../../support/s3/raw-objects.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { bucketSettings } from "../../support/s3/squashd-with-bucket.js";
import { SmallDisk } from "../../support/small-disk.js";

const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
const layers = ["000-base-test", "100-extra"];

describe.skipIf(lacks("root"))("a hostile image in the form of an older daemon", async () => {
  const server = await S3Server.start();
  const objects = new RawObjects(server);
  let disk: SmallDisk;
  let tainted: string;
  let count = 0;
  const squashd = useSquashd({
    here: true,
    env: { ...bucketSettings(server), SQUASH_UPPER_LIMIT_MB: "16" },
    prepare: ({ dataDir }) => (disk = new SmallDisk(dataDir, 256)),
  });
  const taint = (): string => readFileSync("/proc/sys/kernel/tainted", "utf8");

  beforeAll(async () => {
    console.log(`seed ${seed} (set TEST_SEED to repeat)`);
    tainted = taint();
    await squashd.client.create({ id: "hostile", layers });
  });

  afterEach(async () => {
    // whatever came, others are served, and the kernel has nothing to complain of
    await using healthy = await squashd.client.create({ layers });
    expect(await print(healthy, "cat /opt/extra/file")).toBe("from the extra layer\n");
    expect(taint()).toBe(tainted);
  });

  afterAll(async () => {
    await squashd.destroyAll();
    objects[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  /** The code of what a restore of such an image is refused with; nothing of it may stay. */
  async function refusal(image: Buffer): Promise<{ code: string; message: string } | null> {
    const label = `l${++count}`;
    await objects.put(`team/snapshots/hostile/${label}.squashfs`, image);
    const box = squashd.client.sandbox("hostile");
    const found = await box.restore(label).then(
      () => null,
      (error: unknown) =>
        isSquashError(error) ? { code: error.code, message: error.message } : Promise.reject(error as Error),
    );
    expect(halfPlaced(squashd)).toEqual([]);
    expect(readdirSync(join(squashd.dataDir, "cache")).filter((name) => name.startsWith("mkbase-"))).toEqual([]);
    expect(readdirSync(join(squashd.dataDir, "cache/s3")).filter((name) => /\.(part|out)$/.test(name))).toEqual([]);
    return found;
  }

  it.each([
    ["is no image", () => Buffer.from("hsqs".repeat(100)), /superblock/],
    ["is empty", () => Buffer.alloc(0), /neither a squashfs nor an erofs/],
    ["is cut off", () => olderImage("head -c 300000 /dev/urandom >f").subarray(0, 200_000), /cut off/],
    [
      "has the content of another layer",
      () => olderImage("echo x >f; setfattr -n trusted.overlay.metacopy -v '' f"),
      /metacopy/,
    ],
    [
      "has the names of another directory",
      () => olderImage("mkdir d; setfattr -n trusted.overlay.redirect -v /etc d"),
      /redirect/,
    ],
    ["has owners that no sandbox has", () => olderImage("echo x >f; chown 70000 f"), /cannot be unpacked/],
    ["has a name that leads out", () => renamed("evil", "../x"), /cannot be unpacked/],
  ])("is refused where it %s, and leaves nothing", async (_, make, message) => {
    const found = await refusal(make());
    expect(found).toMatchObject({ code: "s3_object_invalid", message: expect.stringMatching(message) as unknown });
  });

  it("is not unpacked where that takes more than there is room for, but comes once there is", async () => {
    const image = olderImage("truncate -s 40M zeroes");
    expect(image.length).toBeLessThan(100_000);
    const free = disk.free;
    disk.fill(70 * 1_048_576);
    const wanted = {
      code: "build_failed",
      message: expect.stringMatching(/the most for the space that is free/) as unknown,
    };
    expect(await refusal(image)).toMatchObject(wanted);
    expect(await refusal(olderImage("truncate -s 300M bomb"))).toMatchObject(wanted);
    disk.clear();
    expect(free - disk.free).toBeLessThan(2_000_000);
    await squashd.client.sandbox("hostile").restore(`l${count - 1}`);
    expect(await print(squashd.client.sandbox("hostile"), "stat -c %s /zeroes")).toBe("41943040\n");
  });

  it("has no devices, and gives no rights", async () => {
    const image = olderImage(`
      mkdir dev2 b; mknod dev2/sda b 8 0; mknod dev2/mem c 1 1; mknod dev2/gone c 0 0
      cp /bin/busybox b/cat; chmod 6755 b/cat; setfattr -n trusted.secret -v x b/cat
      setfattr -n security.capability -v 0x0100000200000020000000000000000000000000 b/cat`);
    expect(await refusal(image)).toBeNull();
    const box = squashd.client.sandbox("hostile");
    expect(await print(box, "ls -A /dev2; stat -c '%a %u' /b/cat")).toBe("6755 0\n");
    const { stdout } = await box.exec("/b/cat /proc/self/status", { user: "user" });
    expect(stdout).toMatch(/Uid:\t1000\t1000\t1000\t1000\n[^]*CapEff:\t0+\n/);
  });

  it("with flipped bits is refused or harmless, and squashd goes on", async () => {
    const image = olderImage(
      `mkdir -p a/b; for i in 1 2 3 4 5 6 7 8 9; do echo $i >a/b/file$i; ln a/b/file$i a/hard$i; done; mknod a/gone c 0 0; setfattr -n trusted.overlay.opaque -v y a/b`,
    );
    const random = randomNumbers(seed);
    for (let round = 0; round < 12; round++) {
      const spoilt = Buffer.from(image);
      // of the tables, which lie at the end, more than of contents
      for (let flips = 0; flips < 1 + (round % 3); flips++) {
        const at = round % 2 === 0 ? random(spoilt.length) : Math.max(0, spoilt.length - 1 - random(1_500));
        spoilt[at] = (spoilt[at] ?? 0) ^ (1 << random(8));
      }
      const found = await refusal(spoilt);
      if (found !== null) expect({ round, ...found }).toMatchObject({ code: "s3_object_invalid" });
    }
  });

  it("is refused where it is not what its manifest says, and leaves nothing", async () => {
    await objects.put("team/modules/303-wrong.squashfs", olderImage("echo x >f"));
    const manifest = { schema: 1, name: "303-wrong", squashfs_sha256: "0".repeat(64) };
    await objects.put("team/modules/303-wrong.squashfs.manifest.json", Buffer.from(JSON.stringify(manifest)));
    const pulled = await jobDone(squashd, { kind: "pull", module: "303-wrong" });
    expect(pulled).toMatchObject({
      code: "s3_object_invalid",
      error: expect.stringMatching(/its manifest says 0000/) as unknown,
    });
    expect(halfPlaced(squashd)).toEqual([]);
    await squashd.client.removeBucketModule("303-wrong");
    expect(await objects.keys("team/modules/303")).toEqual([]);
  });
});

/** An image with a file whose name is no name of a file. */
function renamed(name: string, evil: string): Buffer {
  const image = olderImage(`echo x >${name}`, { more: ["-noI"] });
  const at = image.lastIndexOf(name);
  if (at < 0 || image.indexOf(name) !== at) throw new Error("the name cannot be found in the image");
  image.write(evil, at, "latin1");
  return image;
}
