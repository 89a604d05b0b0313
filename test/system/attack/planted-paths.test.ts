import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { isSquashError, type Sandbox } from "@squash/sdk";
import { killInit } from "../../support/kill-init.js";
import { trustByHand } from "../../support/modules.js";
import { createTarget } from "../../support/probe.js";
import { lacks } from "../../support/needs.js";
import { expectHealthy, useTarget } from "../../support/target.js";

const target = useTarget();
/** What a link that is followed on the host leads to. */
const victim = mkdtempSync(join(tmpdir(), "sqt-victim-"));
const files = ["hostname", "hosts", "passwd", "group", "resolv.conf", "profile.d/x.sh"];

beforeAll(() => mkdirSync(join(victim, "profile.d")));
beforeEach(() => {
  for (const file of files) writeFileSync(join(victim, file), "untouched");
});
afterAll(() => rmSync(victim, { recursive: true }));

/** The victim's files, with what is in them. */
function contents(): Record<string, string> {
  const names = readdirSync(victim, { recursive: true, encoding: "utf8" }).filter((name) => name !== "profile.d");
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(victim, name), "utf8")]));
}

const untouched = Object.fromEntries(files.map((file) => [file, "untouched"]));

/** Everything that squashd and sq-host do to a sandbox in its life: adoption by a new squashd, a rebuild, commands, looks. */
async function liveThrough(sandbox: Sandbox): Promise<void> {
  const { squashd } = target;
  await sandbox.exec("true");
  await squashd.end("SIGKILL");
  await squashd.start();
  await sandbox.exec("true", { user: "user" });
  killInit(await sandbox.info());
  await expect.poll(() => sandbox.info(), { timeout: 10_000 }).toMatchObject({ state: "ready", restarts: 1 });
  await sandbox.exec("true");
  await sandbox.logs();
  await sandbox.info();
}

/** A layer whose files are made by `fill`, on top of the test's base. */
function makeLayer(name: string, fill: (root: string) => void): readonly string[] {
  const root = mkdtempSync(join(tmpdir(), "sqt-layer-"));
  fill(root);
  const image = join(target.squashd.dataDir, "modules", `${name}.squashfs`);
  execFileSync("mksquashfs", [root, image, "-noappend", "-quiet", "-no-progress", "-all-root"], { stdio: "ignore" });
  rmSync(root, { recursive: true });
  trustByHand(join(target.squashd.dataDir, "modules"), name);
  return ["000-base-test", name];
}

describe.skipIf(lacks("root"))("a link that a sandbox plants", () => {
  const plants = {
    "in the place of /etc": `mv /etc /etc.old; ln -s ${victim} /etc`,
    "in the place of its files": `cd /etc; for f in ${files.join(" ")}; do mkdir -p \${f%/*} 2>/dev/null; ln -sf ${victim}/$f $f; done`,
    "in the place of /etc/profile.d": `rm -rf /etc/profile.d; ln -s ${victim}/profile.d /etc/profile.d`,
    "by way of many levels": `rm -rf /etc/hostname; ln -s ../../../../../../../../..${victim}/hostname /etc/hostname`,
    "in the place of all other directories": `for d in root tmp run home var usr; do mv /$d /$d.old; ln -s ${victim} /$d; done`,
  };

  it.each(Object.entries(plants))("%s leads nowhere, in all its life", async (_, plant) => {
    const sandbox = await createTarget(target.squashd.client, { id: "planter" });
    try {
      expect(await sandbox.exec(plant)).toMatchObject({ exit_code: 0 });
      expect((await sandbox.exec(`cat ${victim}/hostname /etc/hostname`)).stdout).not.toContain("untouched");
      await liveThrough(sandbox);
      expect(contents()).toEqual(untouched);
    } finally {
      await sandbox.destroy();
    }
    expect(contents()).toEqual(untouched); // destroying follows none either
    await expectHealthy(target.squashd, target.neighbour);
  });

  it("would lead out for who writes by a path on the host", async () => {
    const sandbox = await createTarget(target.squashd.client, { id: "planter" });
    await sandbox.exec(plants["in the place of /etc"]);
    const upper = join(target.squashd.dataDir, "sandboxes/planter/upper.0/data");
    writeFileSync(join(upper, "etc/hostname"), "overwritten");
    expect(contents()).toEqual({ ...untouched, hostname: "overwritten" });
    await sandbox.destroy();
  });

  it("does not make its working directory one outside", async () => {
    const sandbox = await createTarget(target.squashd.client);
    await sandbox.exec(`ln -s ${victim} /out; ln -s /proc/1/root /init; ln -s /proc/1/cwd /cwd`);
    for (const workdir of ["/out", "/init", "/cwd", "/proc/1/root/etc"])
      expect(await sandbox.exec("pwd", { workdir })).toMatchObject({
        exit_code: 125,
        stderr: expect.stringMatching(/enter directory/),
      });
    await sandbox.destroy();
  });
});

describe.skipIf(lacks("root"))("a layer", () => {
  it("with links in the places of files that are written at first leads nowhere", async () => {
    const links = makeLayer("300-links", (root) => {
      mkdirSync(join(root, "etc"));
      for (const name of ["hostname", "hosts"]) symlinkSync(join(victim, name), join(root, "etc", name));
    });
    const sandbox = await createTarget(target.squashd.client, { layers: [...links] });
    expect((await sandbox.exec("hostname")).stdout).toBe(`${sandbox.id}\n`);
    await sandbox.destroy();
    const whole = makeLayer("300-etc", (root) => symlinkSync(victim, join(root, "etc")));
    const other = await createTarget(target.squashd.client, { layers: [...whole] });
    expect((await other.exec("cat /etc/hostname")).exit_code).toBe(1);
    await other.destroy();
    expect(contents()).toEqual(untouched);
  });

  it.each(["proc", "dev", "sys"])(
    "with a link in the place of /%s is refused, and nothing is left of it",
    async (name) => {
      const layers = makeLayer(`300-${name}`, (root) => symlinkSync(victim, join(root, name)));
      const creating = createTarget(target.squashd.client, { id: "linked", layers: [...layers] });
      await expect(creating).rejects.toMatchObject({
        code: "create_failed",
        message: expect.stringMatching(/must be a plain directory/),
      });
      expect(contents()).toEqual(untouched);
      expect(readdirSync(join(target.squashd.dataDir, "sandboxes")).toSorted()).toEqual(["attacker", "neighbour"]);
    },
  );

  it("with pipes in the places of files keeps nobody waiting for ever", async () => {
    const layers = makeLayer("300-pipes", (root) => {
      mkdirSync(join(root, "etc/profile.d"), { recursive: true });
      for (const name of ["hostname", "hosts", "passwd", "profile.d/x.sh"])
        execFileSync("mkfifo", [join(root, "etc", name)]);
    });
    const sandbox = await createTarget(target.squashd.client, { layers: [...layers], deadlineMs: 5_000 });
    expect(await sandbox.exec("true", { timeout: 1 })).toMatchObject({ exit_code: 124, timed_out: true });
    await sandbox.exec("rm /etc/profile.d/x.sh", { timeout: 1 });
    expect(await sandbox.exec(["rm", "-r", "/etc/profile.d"], { timeout: 1, deadlineMs: 5_000 })).toMatchObject({
      exit_code: 124,
    });
    await sandbox.destroy({ deadlineMs: 5_000 });
    await expectHealthy(target.squashd, target.neighbour);
  });
});

describe.skipIf(lacks("root"))("a name", () => {
  it.each(["..", ".", "a/b", "../../etc", "a\0b", "-a", "a-", "", "x".repeat(65), "a\nb", ".meta"])(
    "like %j makes no directory",
    async (id) => {
      const creating = target.squashd.client.create({ id, layers: ["000-base-test"] });
      const error: unknown = await creating.catch((cause: unknown) => cause);
      expect(isSquashError(error) && error.code).toBe("invalid_request");
    },
  );

  it.each(["../../../etc/passwd", "..", "000-base-test/../000-base-test", "/etc/passwd", "a\0b"])(
    "of a layer like %j leads nowhere",
    async (layer) => {
      const creating = target.squashd.client.create({ layers: ["000-base-test", layer] });
      await expect(creating).rejects.toMatchObject({
        code: expect.stringMatching(/^(invalid_request|module_not_found)$/),
      });
    },
  );
});
