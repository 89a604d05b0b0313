import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { isSquashError } from "@squash/sdk";
import { sendModule } from "../support/modules.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import { randomNumbers } from "../support/random-numbers.js";
import { SmallDisk } from "../support/small-disk.js";

const base = "000-base-test";
const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
let disk: SmallDisk;
const squashd = useSquashd({
  env: { SQUASH_UPPER_LIMIT_MB: "16", SQUASH_POOL_SIZE: "1", SQUASH_SUBNET: "none" },
  prepare: ({ dataDir }) => (disk = new SmallDisk(dataDir, 256)),
});
const { client } = squashd;
const modules = join(squashd.dataDir, "modules");
const home = mkdtempSync(join(tmpdir(), "squash-hostile-"));
const quiet = { stdio: "ignore" } as const;
let tainted: string;

const taint = (): string => readFileSync("/proc/sys/kernel/tainted", "utf8");
const peakKiB = (): number => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${squashd.pid}/status`, "utf8"))?.[1]);

beforeAll(() => {
  tainted = taint();
  console.log(`seed ${seed} (set TEST_SEED to repeat)`);
});
afterEach(async () => {
  await squashd.destroyAll();
  // whatever came, others are served, and the kernel has nothing to complain of
  await using healthy = await client.create({ layers: [base, "100-extra"] });
  expect((await healthy.exec("cat /opt/extra/file")).stdout).toBe("from the extra layer\n");
  expect(taint()).toBe(tainted);
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

function makeTree(): string {
  const root = mkdtempSync(join(home, "root-"));
  mkdirSync(join(root, "opt/deep/er"), { recursive: true });
  for (let at = 0; at < 60; at++) writeFileSync(join(root, `opt/deep/text-${at}`), `line ${at}\n`.repeat(at * 40));
  const random = randomNumbers(1);
  writeFileSync(join(root, "opt/deep/er/noise"), Buffer.from(Array.from({ length: 40_000 }, () => random(256))));
  execFileSync("sh", ["-ec", "ln -s noise link; ln noise hard; mkfifo pipe; truncate -s 3M hole"], {
    cwd: join(root, "opt/deep/er"),
  });
  return root;
}

const packers = {
  squashfs: (root: string, image: string) => [
    "mksquashfs",
    root,
    image,
    "-noappend",
    "-quiet",
    "-no-progress",
    "-all-time",
    "0",
    "-mkfs-time",
    "0",
  ],
  erofs: (root: string, image: string) => [
    "mkfs.erofs",
    "--quiet",
    "-T0",
    "-U00000000-0000-4000-8000-000000000000",
    "-zlz4hc",
    "-C4096",
    image,
    root,
  ],
} as const;

function pack(format: keyof typeof packers): Buffer {
  const image = join(home, `image.${format}`);
  rmSync(image, { force: true });
  const [program, ...args] = packers[format](makeTree(), image);
  execFileSync(program ?? "", args, quiet);
  return readFileSync(image);
}

const push = (name: string, bytes: Buffer): Promise<string> => sendModule(client, name, bytes, { replace: true });

/** Reads all that is in a module, in a sandbox. Returns what the create or the command came to. */
async function readAll(name: string): Promise<string> {
  try {
    await using sandbox = await client.create({ layers: [base, name] });
    const script = "ls -laR /opt; find /opt -type f -exec cat {} + | wc -c";
    const { exit_code, timed_out } = await sandbox.exec(script, { timeout: 20 });
    return timed_out ? "timed out" : `read, ${exit_code}`;
  } catch (error) {
    if (isSquashError(error)) return error.code;
    throw error;
  }
}

/** Ends what the daemon does by itself with a module that was sent. */
async function settleJobs(): Promise<void> {
  for (const job of await client.jobs()) for await (const _ of client.watchJob(job.id));
}

describe.skipIf(lacks("root")).each(["squashfs", "erofs"] as const)("a %s image", (format) => {
  it("with bits flipped anywhere is refused, or harms nobody", async () => {
    const image = pack(format);
    const random = randomNumbers(seed);
    const outcomes: string[] = [];
    for (let round = 0; round < 30; round++) {
      const flipped = Buffer.from(image);
      // the first kilobytes have what all the rest hangs on
      const end = round % 3 === 0 ? Math.min(4_096, image.length) : image.length;
      for (let flips = round === 0 ? 0 : 1 + random(8); flips > 0; flips--) {
        const at = random(end);
        flipped.writeUInt8(flipped.readUInt8(at) ^ (1 << random(8)), at);
      }
      const pushed = await push("100-flipped", flipped);
      await settleJobs();
      outcomes.push(pushed === "taken" ? await readAll("100-flipped") : pushed);
    }
    for (const outcome of outcomes) expect(outcome).toMatch(/^(module_invalid|kernel|create_failed|read, \d+)$/);
    expect(outcomes).toContain("module_invalid");
    // as it was made
    expect(outcomes[0]).toBe("read, 0");
    await client.removeModule("100-flipped").catch(() => undefined);
  });

  it("cut off anywhere is refused, or harms nobody", async () => {
    const image = pack(format);
    const random = randomNumbers(seed + 1);
    for (let round = 0; round < 10; round++) {
      const pushed = await push("100-cut", image.subarray(0, random(image.length)));
      await settleJobs();
      if (pushed === "taken")
        expect(await readAll("100-cut")).toMatch(/^(module_invalid|kernel|create_failed|read, \d+)$/);
      else expect(pushed).toMatch(/^module_invalid$/);
    }
    await client.removeModule("100-cut").catch(() => undefined);
  });
});

describe.skipIf(lacks("root"))("an image that is small and unpacks to more than there is room for", () => {
  /** A tar file of some KiB with a gigabyte of zeros, which are a hole in it. */
  function bombTar(): string {
    const root = mkdtempSync(join(home, "bomb-"));
    mkdirSync(join(root, "opt"));
    writeFileSync(join(root, "opt/big"), "");
    truncateSync(join(root, "opt/big"), 1_073_741_824);
    const tar = join(home, "bomb.tar");
    execFileSync("tar", ["-C", root, "-cSf", tar, "opt"]);
    return tar;
  }

  it("is used as it is, and not unpacked", async () => {
    const image = join(home, "100-bomb.squashfs");
    execFileSync("sqfstar", ["-quiet", "-no-progress", image], { input: readFileSync(bombTar()) });
    expect(statSync(image).size).toBeLessThan(1_048_576);
    const [free, memory] = [disk.free, peakKiB()];
    expect(await push("100-bomb", readFileSync(image))).toBe("taken");
    await settleJobs();
    const jobs = await client.jobs();
    expect(jobs.find(({ module }) => module === "100-bomb")).toMatchObject({
      state: "failed",
      code: "build_failed",
      error: expect.stringMatching(/it unpacks to more than \d+ files or \d+ MiB/),
    });
    expect(free - disk.free).toBeLessThan(4_194_304);
    expect(peakKiB() - memory).toBeLessThan(65_536);
    await using sandbox = await client.create({ layers: [base, "100-bomb"] });
    expect((await sandbox.exec("head -c 100000000 /opt/big | wc -c")).stdout.trim()).toBe("100000000");
    expect((await sandbox.exec("cp /opt/big /copy")).exit_code).not.toBe(0);
    expect(readdirSync(modules).filter((name) => name.includes("bomb"))).toEqual([
      "100-bomb.manifest.json",
      "100-bomb.squashfs",
    ]);
    await sandbox.destroy();
    await client.removeModule("100-bomb");
  });

  it("is refused as a tar file, whatever it is packed with", async () => {
    const free = disk.free;
    const memory = peakKiB();
    const packed = join(home, "zeros.tar.gz");
    execFileSync("sh", ["-c", `head -c 400000000 /dev/zero | gzip >'${packed}'`]);
    for (const tar of [packed, bombTar()]) {
      expect(await squashd.sq("mkmod", "from-tar", tar, "100-bomb")).toMatchObject({ status: 1, stderr: /more than/ });
      expect(readdirSync(modules).filter((name) => name.includes("bomb"))).toEqual([]);
    }
    expect(free - disk.free).toBeLessThan(4_194_304);
    expect(peakKiB() - memory).toBeLessThan(65_536);
  });
});
