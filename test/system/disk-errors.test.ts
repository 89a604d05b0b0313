import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { isSquashError, type Sandbox } from "@squash/sdk";
import { trustByHand } from "../support/modules.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import { simulateReboot } from "../support/reboot.js";
import { SmallDisk } from "../support/small-disk.js";

const base = "000-base-test";
let disk: SmallDisk;
const squashd = useSquashd({
  env: { SQUASH_UPPER_LIMIT_MB: "16", SQUASH_POOL_SIZE: "1" },
  prepare: ({ dataDir }) => (disk = new SmallDisk(dataDir, 64)),
});
const { client } = squashd;
const modules = join(squashd.dataDir, "modules");

afterEach(async () => {
  await squashd.destroyAll();
});

async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

/** A module with 6 MB that cannot be packed. */
function makeModule(name: string, format: "squashfs" | "erofs"): string {
  const root = join(squashd.home, name);
  const image = join(modules, `${name}.${format}`);
  mkdirSync(join(root, "opt"), { recursive: true });
  execFileSync("sh", ["-c", `head -c 6000000 /dev/urandom >'${root}/opt/much'`]);
  const quiet = { stdio: "ignore" } as const;
  if (format === "erofs") execFileSync("mkfs.erofs", ["--all-root", image, root], quiet);
  else execFileSync("mksquashfs", [root, image, "-noappend", "-quiet", "-no-progress", "-all-root"], quiet);
  rmSync(root, { recursive: true });
  trustByHand(modules, name);
  return image;
}

/** Whatever it says, squashd lives and others are served. */
async function refusalOf(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await work;
  } catch (error) {
    if (isSquashError(error)) return { code: error.code, message: error.message };
    throw error;
  }
  return { code: "none", message: "it worked" };
}

describe.skipIf(lacks("root"))("an image that can no longer be read", () => {
  it.each(["squashfs", "erofs"] as const)("of a %s module harms only those who read it", async (format) => {
    const name = `150-fragile-${format}`;
    const image = makeModule(name, format);
    const other = await client.create({ id: "other", layers: [base] });
    const victim = await client.create({ id: "victim", layers: [base, name] });
    truncateSync(image, 1_000_000);
    const { stderr, stdout } = await victim.exec("cat /opt/much | wc -c");
    expect(stderr).toMatch(/Input\/output error|Structure needs cleaning/);
    expect(Number(stdout)).toBeLessThan(6_000_000);
    expect(await print(other, "echo well")).toBe("well\n");
    expect(await print(victim, "echo still here >/file; cat /file")).toBe("still here\n");
    await victim.snapshot({ label: "of-a-broken-one" }); // only what it has written
    const refusal = await refusalOf(client.create({ layers: [base, name] }));
    expect(refusal).toMatchObject({ code: "module_invalid", message: expect.stringContaining(name) as unknown });
    for (const sandbox of [victim, other]) await sandbox.destroy();
    await client.removeModule(name);
  });

  it("of a snapshot is told at its restore or to those who read it, and no other snapshot is harmed", async () => {
    const box = await client.create({ id: "box", layers: [base] });
    await print(box, "echo good >/file");
    await box.snapshot({ label: "good" });
    const known = readdirSync(join(squashd.dataDir, "snapshots"));
    await print(box, "head -c 3000000 /dev/urandom >/much");
    await box.snapshot({ label: "bad" });
    await print(box, "echo now >/file; rm /much");
    const bad =
      readdirSync(join(squashd.dataDir, "snapshots")).find(
        (name) => name.endsWith(".erofs") && !known.includes(name),
      ) ?? "";
    for (const left of [500_000, 1_000, 0]) {
      truncateSync(join(squashd.dataDir, "snapshots", bad), left);
      const refusal = await refusalOf(box.restore("bad"));
      if (refusal.code === "none") {
        const { exit_code, stderr } = await box.exec("md5sum /much");
        expect({ left, exit_code, stderr }).toMatchObject({
          exit_code: 1,
          stderr: expect.stringMatching(/Input\/output error|Structure needs cleaning/) as unknown,
        });
      } else {
        expect(refusal, `${left}`).toMatchObject({
          code: expect.stringMatching(/^(change_failed|module_invalid|snapshot_damaged)$/) as unknown,
        });
        expect((await box.info()).state).toBe("ready");
      }
    }
    await box.restore("good");
    expect(await print(box, "cat /file; ls /much 2>/dev/null || echo none")).toBe("good\nnone\n");
    await box.destroy();
  });
});

describe.skipIf(lacks("root"))("a data directory whose disk fails", () => {
  it("gets clear errors and a squashd that lives, and everything kept is there when the disk is back", async () => {
    const box = await client.create({ id: "box", layers: [base] });
    await print(box, "echo kept >/file");
    await box.snapshot({ label: "kept" });
    disk.fail();
    const attempts = [
      client.create({ id: "new", layers: [base] }),
      box.snapshot({ label: "more" }),
      box.restore("kept"),
      box.activate("100-extra"),
      box.fork(),
    ];
    for (const attempt of attempts) {
      const { code, message } = await refusalOf(attempt);
      expect(code).toMatch(/^(create_failed|snapshot_failed|change_failed|kernel|module_invalid|module_not_found)$/);
      expect(message).toMatch(/EIO|[Ii]\/O error/);
    }
    expect((await client.list()).map(({ id }) => id)).toEqual(["box"]);
    expect((await box.history()).map(({ label }) => label)).toEqual(["kept"]);
    await simulateReboot(squashd);
    disk.mount();
    await squashd.start();
    await box.restore("kept"); // its files since were in memory
    expect(await print(box, "cat /file")).toBe("kept\n");
    await box.destroy();
  });
});
